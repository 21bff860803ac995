"""The connection under penstock_client: TLS, a server that comes back, company in the process."""

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.fake_v2_server import FakeServer, echo

from penstock_client import (
    AsyncClient,
    CancelledError,
    Client,
    InferRequest,
    ResourceExhaustedError,
    RetryPolicy,
    UnavailableError,
)

pytestmark = pytest.mark.any_transport

X = np.arange(3, dtype=np.float32)


@pytest.fixture(scope="module")
def key_and_certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A key made for this run and its self-signed certificate for localhost."""
    folder: Path = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which makes the test's certificate, is not installed")
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-nodes", "-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run([openssl, *request, *subject, *files], check=True, capture_output=True)
    return (folder / "key").read_bytes(), (folder / "certificate").read_bytes()


def test_tls_with_a_trusted_certificate(key_and_certificate: tuple[bytes, bytes]) -> None:
    server_credentials = grpc.ssl_server_credentials([key_and_certificate])
    trust = grpc.ssl_channel_credentials(root_certificates=key_and_certificate[1])
    with FakeServer(credentials=server_credentials) as server:
        with Client(server.url, credentials=trust) as client:
            assert client.infer("m", {"x": X})["x"].tolist() == X.tolist()


async def test_tls_with_a_trusted_certificate_asyncio(
    key_and_certificate: tuple[bytes, bytes],
) -> None:
    server_credentials = grpc.ssl_server_credentials([key_and_certificate])
    trust = grpc.ssl_channel_credentials(root_certificates=key_and_certificate[1])
    with FakeServer(credentials=server_credentials) as server:
        async with AsyncClient(server.url, credentials=trust) as client:
            assert (await client.infer("m", {"x": X}))["x"].tolist() == X.tolist()


def test_plain_text_to_a_tls_server_is_unavailable(
    key_and_certificate: tuple[bytes, bytes],
) -> None:
    server_credentials = grpc.ssl_server_credentials([key_and_certificate])
    with FakeServer(credentials=server_credentials) as server:
        with Client(server.url, retry=RetryPolicy(max_attempts=1)) as client:
            with pytest.raises(UnavailableError):
                client.infer("m", {"x": X})


def test_server_that_comes_back_is_found_again() -> None:
    patient = RetryPolicy(
        max_attempts=10_000, initial_backoff_s=0.02, max_backoff_s=0.02, budget_tokens=100_000
    )
    with FakeServer() as first:
        client = Client(first.url, retry=patient)
        client.infer("m", {"x": X})
    with pytest.raises(UnavailableError):
        client.server_live()  # asked once: tells that the server is gone
    with FakeServer(port=first.port), client:
        assert client.infer("m", {"x": X})["x"].tolist() == X.tolist()


def test_channel_options_win_over_the_defaults() -> None:
    small = [("grpc.max_receive_message_length", 1000)]
    with FakeServer() as server, Client(server.url, channel_options=small) as client:
        assert client.infer("m", {"x": np.zeros(10)})["x"].size == 10
        with pytest.raises(ResourceExhaustedError, match="larger than max"):
            client.infer("m", {"x": np.zeros(1000)})


def test_client_serves_many_streams_and_calls_after_each_other() -> None:
    with FakeServer() as server, Client(server.url) as client:
        for length in range(5):
            requests = [InferRequest("m", {"x": X}) for _ in range(length)]
            assert len(list(client.stream(requests, raise_errors=True))) == length
            assert client.infer("m", {"x": X})["x"].size == 3


class Hang:
    """A model that answers only once its caller has gone."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.abandoned = threading.Event()

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(self.abandoned.set)
        self.started.set()
        self.abandoned.wait()
        return echo(request, context)

    def stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            self(request, context)
        yield from ()


def test_close_cancels_calls_in_flight() -> None:
    hang = Hang()
    with FakeServer(hang) as server, ThreadPoolExecutor(1) as pool:
        client = Client(server.url)
        call = pool.submit(client.infer, "m", {"x": X})
        hang.started.wait()
        client.close()
        with pytest.raises(CancelledError):
            call.result()


async def test_close_cancels_calls_in_flight_but_not_their_tasks() -> None:
    hang = Hang()
    with FakeServer(hang) as server:
        client = AsyncClient(server.url)
        task = asyncio.create_task(client.infer("m", {"x": X}))
        await asyncio.to_thread(hang.started.wait)
        await client.close()
        with pytest.raises(CancelledError, match="CANCELLED: .*model 'm'"):
            await task
        assert not task.cancelled()


async def test_close_cancels_streams_but_not_their_tasks() -> None:
    hang = Hang()

    async def read(client: AsyncClient) -> list[Any]:
        return [item async for item in client.stream([InferRequest("m", {"x": X})])]

    with FakeServer(stream=hang.stream) as server:
        client = AsyncClient(server.url)
        task = asyncio.create_task(read(client))
        await asyncio.to_thread(hang.started.wait)
        await client.close()
        with pytest.raises(CancelledError):
            await task
        assert not task.cancelled()


USE_BOTH = """
import numpy, {first}, {second}
from tritonclient.grpc import InferInput, InferenceServerClient, service_pb2
from penstock_client import Client
x = numpy.arange(3, dtype=numpy.float32)
wanted = InferInput("x", [3], "FP32")
wanted.set_data_from_numpy(x)
theirs = InferenceServerClient("{url}").infer("m", [wanted]).as_numpy("x")
ours = Client("{url}").infer("m", {{"x": x}})["x"]
assert theirs.tolist() == ours.tolist() == x.tolist()
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [("penstock_client", "tritonclient.grpc"), ("tritonclient.grpc", "penstock_client")],
    ids=["ours-first", "tritonclient-first"],
)
def test_both_clients_work_in_one_process(first: str, second: str) -> None:
    seen: list[Any] = []

    def note(request: Any, context: grpc.ServicerContext) -> Any:
        seen.append(request)
        return echo(request, context)

    with FakeServer(note) as server:
        source = USE_BOTH.format(first=first, second=second, url=server.url)
        subprocess.run([sys.executable, "-c", source], check=True)
    theirs, ours = seen
    assert theirs == ours  # the same call is the same message
