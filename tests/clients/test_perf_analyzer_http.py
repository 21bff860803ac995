"""perf_analyzer runs to the end over HTTP, which is what it does unless told otherwise."""

from collections.abc import Iterator

import pytest
from tests.support import perf_analyzer
from tests.support.models import onnx_files
from tests.support.server_process import served

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

BATCHED = """
platform: "onnxruntime_onnx"
max_batch_size: 8
dynamic_batching { }
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        perf_analyzer.fetch()
    except perf_analyzer.DownloadError as error:
        pytest.skip(f"perf_analyzer cannot be downloaded here: {error}")
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple(), config=BATCHED)
    onnx_files.write_model(repository, "identity_bytes", onnx_files.identity("BYTES"))
    with served(repository, "--allow-client-shm=true") as server:
        yield server.http


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("simple", []),
        ("simple", ["-b", "8", "--concurrency-range", "1:4"]),
        ("simple", ["--async", "--concurrency-range", "4"]),
        ("simple", ["--shared-memory", "system"]),
        ("simple", ["--input-tensor-format", "json", "--output-tensor-format", "json"]),
        ("identity_bytes", ["--shape", "INPUT0:4"]),
    ],
)
def test_load_is_measured(url: str, model: str, flags: list[str]) -> None:
    for each in perf_analyzer.run(url, model, *flags, protocol="http"):
        assert each.throughput > 0 and each.requests > 0
        assert 0 < each.executions <= each.requests
