"""The harness's HTTP client against servers that close connections, and that go."""

import asyncio
import queue

import numpy as np
import pytest
from mlperf.http_target import HttpTarget
from mlperf.targets import Completion
from mlperf.workloads import Workload
from tests.support.loopback_server import loopback_server

pytestmark = pytest.mark.any_transport

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def toy() -> Workload:
    return Workload("toy", b"", {"x": np.zeros((4, 2), np.float32)}, "y")


async def request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ") for line in head.splitlines()[1:-1])
    await reader.readexactly(int(fields[b"Content-Length"]))


async def opened(server: asyncio.Server) -> tuple[HttpTarget, "queue.Queue[Completion]"]:
    host, port = server.sockets[0].getsockname()
    target = await asyncio.to_thread(HttpTarget, toy(), f"{host}:{port}", "unused", 1)
    done: queue.Queue[Completion] = queue.Queue()

    def on_done(completions: list[Completion]) -> None:
        for each in completions:
            done.put(each)

    target.on_done = on_done
    return target, done


async def asked(target: HttpTarget, done: "queue.Queue[Completion]", tag: int) -> Completion:
    target.submit([(tag, 0)])
    return await asyncio.to_thread(done.get, True, 20)


async def test_connection_that_was_closed_when_idle_is_opened_again() -> None:
    closed = asyncio.Event()

    async def one_request_a_connection(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request(reader)
        writer.write(ANSWER)
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with loopback_server(one_request_a_connection) as server:
        target, done = await opened(server)
        for tag in range(3):
            answer = await asked(target, done, tag)
            assert (answer.tag, answer.failure) == (tag, "")
            await closed.wait()
            closed.clear()
        await asyncio.to_thread(target.close)


async def test_request_that_met_a_closing_connection_is_sent_once_more_only() -> None:
    requests = 0

    async def close_without_answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal requests
        await request(reader)
        requests += 1

    async with loopback_server(close_without_answer) as server:
        target, done = await opened(server)
        answer = await asked(target, done, 7)
        assert (answer.tag, answer.is_lost) == (7, True)
        assert "connection lost" in answer.failure
        assert requests == 2
        await asyncio.to_thread(target.close)


async def test_target_that_takes_no_connection_has_gone() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        server.close()

    async with loopback_server(die) as server:
        target, done = await opened(server)
        answer = await asked(target, done, 1)
        assert answer.is_lost
        assert (await asked(target, done, 2)).is_lost
        await asyncio.to_thread(target.close)
