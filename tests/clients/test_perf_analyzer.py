"""perf_analyzer runs to the end over gRPC and finds the server's own statistics."""

from collections.abc import Iterator

import pytest
from tests.support import perf_analyzer
from tests.support.models import classical, onnx_files
from tests.support.perf_analyzer import Measurement
from tests.support.server_process import served

pytestmark = pytest.mark.slow

BATCHED = """
platform: "onnxruntime_onnx"
max_batch_size: 8
dynamic_batching { }
"""


@pytest.fixture(scope="module", autouse=True)
def _binary() -> None:
    try:
        perf_analyzer.fetch()
    except perf_analyzer.DownloadError as error:
        pytest.skip(f"perf_analyzer cannot be downloaded here: {error}")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple(), config=BATCHED)
    onnx_files.write_model(repository, "simple_string", onnx_files.simple("BYTES"))
    onnx_files.write_model(repository, "no_batch", onnx_files.identity("FP32", [2, 3]))
    for datatype in ("FP16", "BYTES"):
        model = onnx_files.identity(datatype)
        onnx_files.write_model(repository, f"identity_{datatype.lower()}", model)
    onnx_files.write_model(repository, "digits", classical.digits()[0])
    with served(repository, "--allow-client-shm=true") as server:
        yield server.grpc


def check(found: list[Measurement], *, loads: int, rows_per_request: int = 1) -> None:
    """Every load was measured, on the server too, and its counts fit together."""
    assert len(found) == loads
    for each in found:
        assert each.throughput > 0
        assert each.requests > 0
        assert each.rows == each.requests * rows_per_request
        assert 0 < each.executions <= each.requests
        assert sum(each.parts_us) <= each.latency_us + len(each.parts_us)  # rounded each


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("simple", []),
        ("digits", []),
        ("no_batch", []),
        ("simple_string", ["--string-data", "12"]),
        ("identity_fp16", ["--shape", "INPUT0:4"]),
        ("identity_bytes", ["--shape", "INPUT0:4"]),
    ],
)
def test_one_request_at_a_time(url: str, model: str, flags: list[str]) -> None:
    check(perf_analyzer.run(url, model, *flags), loads=1)


@pytest.mark.parametrize("model", ["simple", "digits"])
def test_batches_of_the_client(url: str, model: str) -> None:
    check(perf_analyzer.run(url, model, "-b", "8"), loads=1, rows_per_request=8)


@pytest.mark.parametrize(
    "flags", [[], ["--async"], ["--streaming"], ["--async", "--streaming"]], ids=" ".join
)
def test_a_range_of_concurrencies(url: str, flags: list[str]) -> None:
    check(perf_analyzer.run(url, "simple", "--concurrency-range", "1:4", *flags), loads=4)


@pytest.mark.parametrize("flags", [[], ["--request-distribution", "poisson"]], ids=" ".join)
def test_a_range_of_request_rates(url: str, flags: list[str]) -> None:
    rates = ["--request-rate-range", "100:300:100"]
    check(perf_analyzer.run(url, "simple", *rates, *flags), loads=3)


def test_requests_of_many_clients_are_batched(url: str) -> None:
    (found,) = perf_analyzer.run(url, "digits", "--async", "--concurrency-range", "32:32")
    assert found.executions < found.requests


def test_trace_options_that_trace_nothing(url: str) -> None:
    check(perf_analyzer.run(url, "simple", "--trace-level", "OFF", "--trace-rate", "1000"), loads=1)


@pytest.mark.parametrize(
    "flags",
    [
        *([], ["-b", "8"], ["--async", "--concurrency-range", "4:4"]),
        ["--async", "--streaming", "--concurrency-range", "4:4"],
    ],
    ids=" ".join,
)
def test_system_shared_memory(url: str, flags: list[str]) -> None:
    rows = 8 if "-b" in flags else 1
    shared = ["--shared-memory", "system", "--output-shared-memory-size", "1024"]
    check(perf_analyzer.run(url, "simple", *shared, *flags), loads=1, rows_per_request=rows)


def test_text_in_system_shared_memory(url: str) -> None:
    shared = ["--shared-memory", "system", "--string-data", "12"]
    check(perf_analyzer.run(url, "simple_string", *shared), loads=1)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(url: str, algorithm: str) -> None:
    flags = ["--grpc-compression-algorithm", algorithm]
    check(perf_analyzer.run(url, "simple", *flags), loads=1)
