"""The loop of a worker: packets in, the model's answers out."""

from __future__ import annotations

import contextlib
import gc
from functools import partial
from typing import Any

from penstock.worker.channel import Channel, Packet
from penstock.worker.failure import MAX_TEXT_BYTES, ModelFault, describe, report
from penstock.worker.model import Answer, Batch, Model, fault
from penstock.worker.source import Start, load_model
from penstock.worker.streams import StreamLoop
from penstock.worker.wire import Kind, Run, decode_run, encode_signature
from penstock.worker.writer import Writer


def serve(socket_fd: int, document: dict[str, Any]) -> None:
    """Loads the model and runs batches until the server closes the socket."""
    with contextlib.closing(Channel(socket_fd)) as channel:
        _serve(channel, Start.from_document(document))


def _serve(channel: Channel, start: Start) -> None:
    try:
        model = load_model(start)
        channel.wait_for_slab()
        channel.send_body(Kind.DESCRIBED, encode_signature(model.signature))
        packet = channel.receive()
        if packet is None:
            return
        slab, offset = channel.body(packet)
        model.start(slab[offset : offset + packet[6]].decode())
    except (Exception, SystemExit) as error:
        _tell_failure(channel, error)
        raise SystemExit(1) from None
    # What the model and its libraries have made stays: a collection goes through it no more, for
    # which a batch now and then would wait.
    gc.collect()
    gc.freeze()
    channel.send(Kind.READY)
    loop = StreamLoop if model.signature.is_decoupled else Loop
    loop(channel, model, start.model_name).run()


def _tell_failure(channel: Channel, error: BaseException) -> None:
    report(error)
    text = str(error) if isinstance(error, ModelFault) else describe(error)
    # Where the socket is closed there is nobody to tell.
    with contextlib.suppress(OSError, SystemExit):
        channel.wait_for_slab()
        channel.send_body(Kind.FAILED, text.encode(errors="replace")[:MAX_TEXT_BYTES])


class Loop:
    """Runs one batch after the other."""

    def __init__(self, channel: Channel, model: Model, model_name: str) -> None:
        self._channel = channel
        self._model = model
        self._name = model_name
        self._inputs = [spec.name for spec in model.signature.inputs]
        self._outputs = [spec.name for spec in model.signature.outputs]
        self._writer = Writer(channel, model.signature.outputs, partial(fault, model_name))

    def run(self) -> None:
        """Returns when the server wants no more."""
        while (packet := self._channel.receive()) is not None:
            if packet[0] == Kind.RUN:
                self._run_batch(packet)
        self._model.stop()

    def _run_batch(self, packet: Packet) -> None:
        self._channel.use_outputs(packet[4])
        body, offset = self._channel.body(packet)
        run = decode_run(body, offset)
        expected = max(len(run.requests), 1)
        try:
            answers = self._answers(run)
            if len(answers) != expected:
                raise ModelFault(f"{len(answers)} responses for {expected} requests")
        except Exception as error:
            answers = [fault(self._name, error)] * expected
        wanted = [request.wanted for request in run.requests] or [run.wanted]
        self._writer.write(Kind.DONE, answers, wanted, packet[2])

    def _answers(self, run: Run) -> list[Answer]:
        array = self._channel.array
        inputs = {self._inputs[record[0]]: array(record) for record in run.inputs}
        wanted = tuple(self._outputs[index] for index in run.wanted)
        return self._model.run(Batch(inputs, wanted, run.requests))
