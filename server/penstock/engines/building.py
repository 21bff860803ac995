"""The process that builds an engine, as its parent has it: started, followed, ended.

It may say more than anybody reads, leave others behind that hold its pipes, and not even end when
it is killed: a driver can keep a process for good. Nothing here waits for it beyond a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from typing import Any

_READ_BYTES = 1 << 20
"""More than a pipe holds: one read takes all that is in it."""
_HEAD_BYTES = 1000
_TAIL_BYTES = 2000

Said = dict[str, Any]


class BuildProcess:
    """A child that builds, which answers by lines of JSON and prints its vendor's words.

    Threading: one thread's, but for `stop`.
    Ownership: the child, until it has ended or `end` says that it does not.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], answers: FileIO, words: FileIO, stopped: int
    ) -> None:
        """`started` makes one. `stopped`: an eventfd."""
        self.process = process
        self.answer: Said | None = None
        """The last line, where it is an answer."""
        self.words = Excerpt()
        self._answers = answers
        self._words = words
        self._stopped = stopped
        self._rest = b""

    def follow(self, on_progress: Callable[[Said], None], limit_s: float) -> bool:
        """Until it has ended; False where it did not in time, or was stopped.

        A process that it leaves behind may keep its pipes open: that one is not waited for.
        Blocking: for as long.
        """
        end = time.monotonic() + limit_s
        pipes = {
            self._answers.fileno(): lambda: self._hear(on_progress),
            self._words.fileno(): self._read_words,
        }
        ended = os.pidfd_open(self.process.pid)
        try:
            poll = select.poll()
            for descriptor in (ended, self._stopped, *pipes):
                poll.register(descriptor, select.POLLIN)
            while (left := end - time.monotonic()) > 0:
                ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
                for descriptor in pipes.keys() & set(ready):
                    if not pipes[descriptor]():
                        poll.unregister(descriptor)
                if ended in ready:
                    self.process.wait()
                    self._read_words()
                    self._hear(on_progress)
                    self._take(self._rest, on_progress)
                    return True
                if self._stopped in ready:
                    return False
            return False
        finally:
            os.close(ended)

    def stop(self) -> None:
        """Kills it, and has `follow` return. Only before `end`."""
        self._kill()
        os.eventfd_write(self._stopped, 1)

    def end(self, limit_s: float) -> bool:
        """Kills it unless it has ended; whether it is gone, and waited for. Blocking: so long."""
        self._kill()
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def how_ended(self) -> str:
        """As in "the process was killed by SIGKILL". Only after it has."""
        code = self.process.returncode
        return f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"

    def _kill(self) -> None:
        """It and what it started: the group is its own."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _read_words(self) -> bool:
        """Whether there were some."""
        read = self._words.read(_READ_BYTES)
        self.words.add(read or b"")
        return bool(read)

    def _hear(self, on_progress: Callable[[Said], None]) -> bool:
        """Whether there was something."""
        read = self._answers.read(_READ_BYTES)
        *lines, self._rest = (self._rest + (read or b"")).split(b"\n")
        self._rest = self._rest[:_READ_BYTES]
        for line in lines:
            self._take(line, on_progress)
        return bool(read)

    def _take(self, line: bytes, on_progress: Callable[[Said], None]) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        if "phase" in said:
            on_progress(said)
        else:
            self.answer = said


class Excerpt:
    """The head and the tail of what was printed: the cause may stand in either."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._size_bytes = 0

    def add(self, printed: bytes) -> None:
        """More of it."""
        self._size_bytes += len(printed)
        room = _HEAD_BYTES - len(self._head)
        self._head += printed[:room]
        self._tail = (self._tail + printed[room:])[-_TAIL_BYTES:]

    def __bool__(self) -> bool:
        """Whether there was any."""
        return self._size_bytes > 0

    def __str__(self) -> str:
        """On one line, with how much was left out."""
        left_out = self._size_bytes - len(self._head) - len(self._tail)
        gap = f" [{left_out} bytes left out] ".encode() if left_out else b""
        return " ".join((self._head + gap + self._tail).decode(errors="replace").split())


@contextmanager
def started(
    command: Sequence[str], request: bytes, environment: Mapping[str, str]
) -> Iterator[BuildProcess]:
    """A child that was given the request; it has to be ended before this does.

    Args:
        command: its own, without its argument.
        request: its standard input.
        environment: what it has besides this process's own, less the server's settings.

    Raises:
        OSError: it does not start, or there is no room for its request.
    """
    with ExitStack() as opened:

        def pipe() -> tuple[FileIO, int]:
            reader, writer = os.pipe()
            opened.callback(os.close, writer)
            os.set_blocking(reader, False)
            return opened.enter_context(FileIO(reader)), writer

        answers, answer_to = pipe()
        words, print_to = pipe()
        stopped = os.eventfd(0)
        opened.callback(os.close, stopped)
        asked = opened.enter_context(tempfile.TemporaryFile())
        asked.write(request)
        asked.seek(0)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        try:
            process = subprocess.Popen(
                [*command, str(answer_to)],
                stdin=asked,
                stdout=print_to,
                stderr=subprocess.STDOUT,
                env={**inherited, **environment},
                pass_fds=(answer_to,),
                start_new_session=True,
            )
        except OSError as error:
            why = f"the process for it does not start: {error.strerror}"
            raise OSError(error.errno, why) from error
        yield BuildProcess(process, answers, words, stopped)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
