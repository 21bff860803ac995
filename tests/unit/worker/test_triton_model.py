"""What a TritonPythonModel may return, and what it is told when it returns something else."""

from pathlib import Path
from textwrap import dedent, indent

import numpy as np
import pytest
from tests.support.worker_host import MakeHost, make_host, request_bytes

from penstock.worker.wire import Kind

__all__ = ["make_host"]

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(8)
        return config
    def execute(self, requests):
"""


def run(make_host: MakeHost, body: str, requests: int = 2) -> list[tuple[int, str]]:
    """Code and text of each result of a batch of one-row requests."""
    host = make_host(MODEL + indent(dedent(body), " " * 8))
    assert host.start().kind is Kind.READY
    batch = np.zeros((requests, 1), np.float32)
    host.run([batch], (0,), [request_bytes(1) for _ in range(requests)])
    return [(code, text) for code, text, _ in host.results(host.receive())]


def test_each_request_has_its_own_outcome_and_shape(make_host: MakeHost) -> None:
    body = """
        error = pb_utils.TritonError("busy", pb_utils.TritonError.UNAVAILABLE)
        good = pb_utils.Tensor("y", np.zeros((1, 3), np.float32))
        return [pb_utils.InferenceResponse(error=error), pb_utils.InferenceResponse([good])]
    """
    assert run(make_host, body) == [(14, "busy"), (0, "")]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return []", "0 responses for 2 requests"),
        ("return None", "execute returned a NoneType, expected a list"),
        ("return [1, 2]", "execute returned a int among its responses"),
        ("raise pb_utils.TritonModelException('no')", "TritonModelException: no"),
        ("requests[0].get_response_sender()", "not decoupled"),
        ("requests[0].exec()", "BLS"),
    ],
)
def test_what_is_no_answer_fails_the_batch(make_host: MakeHost, body: str, text: str) -> None:
    for code, got in run(make_host, body):
        assert code == 13
        assert text in got


def test_error_without_a_code_of_grpc_is_internal(make_host: MakeHost) -> None:
    body = """
        error = pb_utils.TritonError("odd", 99)
        return [pb_utils.InferenceResponse(error=error) for _ in requests]
    """
    assert run(make_host, body) == [(13, "odd")] * 2


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("class TritonPythonModel: pass", "no method execute"),
        (
            "class TritonPythonModel:\n    def execute(self, requests): ...",
            "nothing says what inputs the model has",
        ),
        (
            "class TritonPythonModel:\n    def execute(self, requests): ...\n"
            "    @staticmethod\n    def auto_complete_config(config): ...",
            "auto_complete_config returned a NoneType",
        ),
    ],
)
def test_class_that_says_too_little_is_refused(make_host: MakeHost, source: str, text: str) -> None:
    reply = make_host(source).start()
    assert reply.kind is Kind.FAILED
    assert text in reply.body.decode()


def test_execute_may_be_async(make_host: MakeHost) -> None:
    host = make_host(
        MODEL.replace("    def execute", "    async def execute")
        + indent(
            dedent("""
                import asyncio
                await asyncio.sleep(0)
                tensor = pb_utils.Tensor("y", np.ones((1, 1), np.float32))
                return [pb_utils.InferenceResponse([tensor]) for _ in requests]
            """),
            " " * 8,
        )
    )
    assert host.start().kind is Kind.READY
    host.run([np.zeros((1, 1), np.float32)], (0,), [request_bytes(1)])
    assert host.results(host.receive())[0][:2] == (0, "")


def test_model_imports_what_lies_beside_it_and_in_its_directory(
    make_host: MakeHost, tmp_path: Path
) -> None:
    files = {"1/helper_beside": "ONE = 1", "1/plain_beside": "TWO = 2", "lib_above": "THREE = 3"}
    (tmp_path / "m" / "1").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "m" / f"{name}.py").write_text(text)
    source = (
        "from .helper_beside import ONE\nfrom plain_beside import TWO\nimport lib_above\n"
        "class Model:\n  inputs = outputs = {'x': ('INT32', (1,))}\n"
        "  def predict(self, batch): return {'x': batch['x'] * 0 + ONE + TWO + lib_above.THREE}\n"
    )
    host = make_host(source)
    assert host.start().kind is Kind.READY
    host.run([np.zeros((1, 1), np.int32)])
    assert host.results(host.receive())[0][2][0].tolist() == [[6]]
