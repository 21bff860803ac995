"""The loop of a decoupled model's worker: requests that are answered any number of times.

One thread receives: batches, credit for responses, who has gone. The main thread runs the model.
A response is sent when its request has credit, and its memory used again once the server has taken
it, so a client that reads slowly holds up its own stream.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from penstock.worker.channel import Channel, Packet
from penstock.worker.failure import report
from penstock.worker.model import Answer, Batch, Model, fault
from penstock.worker.wire import Kind, Request, decode_run
from penstock.worker.writer import Writer

_LAST = 1
_NO_BODY = 2


class ClosedError(Exception):
    """The server wants no more."""


class OpenStream:
    """A model.Stream. Threading: thread-safe."""

    def __init__(self, loop: StreamLoop, batch: int, index: int, request: Request) -> None:
        self._loop = loop
        self.batch = batch
        self.index = index
        self.request = request
        self.credit = request.room
        self.has_gone = False  # the client
        self.has_ended = False

    def send(self, answer: Answer | None, is_last: bool) -> None:
        """Blocking, while there is no room."""
        self._loop.send(self, answer, is_last)

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return self.has_gone

    def can_go_on(self) -> bool:
        """Whether the model may be asked for the next response."""
        return self.credit > 0 or self.has_gone or self.has_ended


class StreamLoop:
    """Takes batches and steps their generators in turn, as far as their clients have room."""

    def __init__(self, channel: Channel, model: Model, model_name: str) -> None:
        self._channel = channel
        self._model = model
        self._name = model_name
        self._inputs = [spec.name for spec in model.signature.inputs]
        self._outputs = [spec.name for spec in model.signature.outputs]
        self._writer = Writer(
            channel,
            model.signature.outputs,
            partial(fault, model_name),
            may_leave_out=True,
        )
        self._generators: deque[tuple[OpenStream, Iterator[dict[str, Any]]]] = deque()
        self._sending = threading.Lock()  # before _changed
        self._changed = threading.Condition()
        # Guarded by _changed.
        self._batches: deque[tuple[int, Batch | Answer]] = deque()  # or why not
        self._streams: dict[tuple[int, int], OpenStream] = {}
        self._is_taken = True  # the last response, by the server
        self._is_closed = False
        self._has_failed = False  # the receiver

    def run(self) -> None:
        """Returns when the server wants no more.

        Raises:
            SystemExit: its packets cannot be received.
        """
        receiver = threading.Thread(target=self._receive, name="receiver", daemon=True)
        self._channel.wait_until = self._await
        receiver.start()
        try:
            while True:
                self._turn()
        except (ClosedError, BrokenPipeError):
            pass
        for _, generator in self._generators:
            _close(generator)
        self._model.stop()
        if self._has_failed:
            raise SystemExit(1)

    def send(self, stream: OpenStream, answer: Answer | None, is_last: bool) -> None:
        """Sends a response, the end of a stream, or both; nothing once it has ended."""
        is_response = answer is not None and not answer.code
        while True:
            if is_response:
                self._await(stream.can_go_on)
            with self._sending:
                # Other threads of the model may have used the credit meanwhile.
                if is_response and not self._take_credit(stream):
                    continue
                if stream.has_ended:
                    return
                if answer is not None and not stream.has_gone:
                    self._send_answer(stream, answer, is_last or bool(answer.code))
                elif is_last or stream.has_gone:
                    self._send_end(stream)
                return

    def _take_credit(self, stream: OpenStream) -> bool:
        """Whether the stream may be sent to, or has no use for what is sent."""
        with self._changed:
            if stream.has_gone or stream.has_ended:
                return True
            if stream.credit <= 0:
                return False
            stream.credit -= 1
            return True

    def _send_answer(self, stream: OpenStream, answer: Answer, is_last: bool) -> None:
        is_sent = self._write(
            Kind.RESPONSE,
            answer,
            stream.request.wanted,
            stream.batch,
            request=stream.index,
            value=_LAST * is_last,
        )
        if is_last:
            self._end(stream)
        elif not is_sent:  # a failure was sent in its place
            self._send_end(stream)

    def _send_end(self, stream: OpenStream) -> None:
        self._end(stream)
        self._channel.send(
            Kind.RESPONSE, stream.batch, request=stream.index, value=_LAST | _NO_BODY
        )

    def _write(
        self, kind: Kind, answer: Answer, wanted: Sequence[int], batch: int, **fields: int
    ) -> bool:
        """Writes an answer and waits until it was taken. Whether it was sent as it is."""
        with self._changed:
            self._is_taken = False
        try:
            is_sent = self._writer.write(kind, [answer], [wanted], batch, **fields)
        except BaseException:  # nothing was sent, so nothing will be taken
            with self._changed:
                self._is_taken = True
            raise
        self._await(lambda: self._is_taken)
        return is_sent

    def _end(self, stream: OpenStream) -> None:
        with self._changed:
            stream.has_ended = True
            if self._streams.get((stream.batch, stream.index)) is stream:
                del self._streams[stream.batch, stream.index]

    def _turn(self) -> None:
        """Takes a batch if there is one, and asks one generator for one response."""
        with self._changed:
            while not (self._batches or self._is_closed or self._runnable()):
                self._changed.wait()
            if self._is_closed:
                raise ClosedError
            taken = self._batches.popleft() if self._batches else None
        if taken is not None:
            self._take_batch(*taken)
        for _ in range(len(self._generators)):
            stream, generator = self._generators.popleft()
            if stream.can_go_on() and not self._step(stream, generator):
                continue
            self._generators.append((stream, generator))

    def _runnable(self) -> bool:
        return any(stream.can_go_on() for stream, _ in self._generators)

    def _take_batch(self, number: int, batch: Batch | Answer) -> None:
        generators: Sequence[Iterator[dict[str, Any]]] = ()
        streams: list[OpenStream] = []
        if isinstance(batch, Answer):
            answer = batch
        else:
            streams = self._streams_of(number, batch)
            generators, answer = self._run_streams(batch, streams)
        with self._sending:
            self._write(Kind.DONE, answer, (), number)
        self._generators.extend(zip(streams, generators, strict=False))

    def _streams_of(self, number: int, batch: Batch) -> list[OpenStream]:
        with self._changed:
            return [self._streams[number, index] for index in range(len(batch.requests))]

    def _run_streams(
        self, batch: Batch, streams: Sequence[OpenStream]
    ) -> tuple[Sequence[Iterator[dict[str, Any]]], Answer]:
        try:
            return self._model.run_streams(batch, streams), Answer({})
        except ClosedError:
            raise
        except Exception as error:
            for stream in streams:
                self._end(stream)
            return (), fault(self._name, error)

    def _step(self, stream: OpenStream, generator: Iterator[dict[str, Any]]) -> bool:
        """Whether the generator may have more to give."""
        if stream.has_gone or stream.has_ended:
            _close(generator)
            stream.send(None, True)
            return False
        try:
            answer = Answer(dict(next(generator)))
        except StopIteration:
            stream.send(None, True)
            return False
        except Exception as error:
            stream.send(fault(self._name, error), True)
            return False
        stream.send(answer, False)
        return True

    def _await(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            while not condition():
                if self._is_closed:
                    raise ClosedError
                self._changed.wait()

    def _receive(self) -> None:
        try:
            while (packet := self._channel.receive(self._notify)) is not None:
                with self._changed:
                    self._handle(packet)
                    self._changed.notify_all()
        except BaseException as error:  # no memory for a slab: nobody else would notice
            self._has_failed = True
            report(error)
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _handle(self, packet: Packet) -> None:
        kind, _, batch, request, value, _, _ = packet
        if kind == Kind.RUN:
            self._open(packet)
        elif kind == Kind.TAKEN:
            self._is_taken = True
        elif (stream := self._streams.get((batch, request))) is not None:
            if kind == Kind.CREDIT:
                stream.credit += value
            elif kind == Kind.CANCEL:
                stream.has_gone = True

    def _open(self, packet: Packet) -> None:
        """Takes a batch; where that cannot be the main thread tells why."""
        number = packet[2]
        try:
            batch = self._read_batch(packet)
        except Exception as error:
            self._batches.append((number, fault(self._name, error)))
            return
        for index, request in enumerate(batch.requests):
            self._streams[number, index] = OpenStream(self, number, index, request)
        self._batches.append((number, batch))

    def _read_batch(self, packet: Packet) -> Batch:
        """Copies a batch's inputs: they are the model's for as long as it answers."""
        body, offset = self._channel.body(packet)
        run = decode_run(body, offset)
        inputs = {
            self._inputs[record[0]]: np.array(self._channel.array(record)) for record in run.inputs
        }
        wanted = tuple(self._outputs[index] for index in run.wanted)
        return Batch(inputs, wanted, run.requests)


def _close(generator: Iterator[dict[str, Any]]) -> None:
    """Tells a generator that nobody listens any more; what it raises then is its own affair."""
    close = getattr(generator, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception as error:
        report(error)
