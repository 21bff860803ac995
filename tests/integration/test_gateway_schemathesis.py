"""schemathesis plays the OpenAPI document against a server: nothing it makes up is a 5xx.

But for what the protocol's words say so: a feature that this server does not have is 501, and a
model or an object of shared memory that cannot be had is 500, as on Triton.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from tests.support.models import onnx_files
from tests.support.server_process import served

from penstock_gateway.openapi import document

pytestmark = pytest.mark.any_transport

SCHEMA = schemathesis.openapi.from_dict(document())
FOUND: Any = SCHEMA.get_all_operations()
OPERATIONS = [each.ok() for each in FOUND]
TRITONS = {
    500: ("failed to load '", "Unable to open shared memory region", "failed to unload '"),
    501: ("trace", "log_file", "log file", "'repository_name'"),
}
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repository: Path = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    flags = ["--model-control-mode", "explicit", "--load-model", "*", "--allow-client-shm=true"]
    with served(repository, *flags, "--http-default-model", "simple") as running:
        yield f"http://{running.http}"


def play(operation: Any, url: str, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=QUIET,
    )
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        for name in case.path_parameters or {}:
            if name == "model" and len(case.path_parameters[name]) % 2:
                case.path_parameters[name] = "simple"  # half of them get past the name
        check(case.call(base_url=url))

    one()


def check(reply: Any) -> None:
    if reply.status_code == 200:
        return
    error = reply.json()["error"]
    assert isinstance(error, str) and error
    expected = any(words in error for words in TRITONS.get(reply.status_code, ()))
    assert reply.status_code < 500 or expected, (reply.status_code, error, reply.request.url)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.label)
def test_no_request_that_the_document_allows_is_a_failure(operation: Any, url: str) -> None:
    play(operation, url, examples=5)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.label)
def test_nor_do_many_more(operation: Any, url: str) -> None:
    play(operation, url, examples=300)
