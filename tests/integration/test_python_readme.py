"""The examples of server/penstock/worker/README.md are served as they stand there."""

import re
from pathlib import Path

import numpy as np
import pytest
from tests.support.models.python_files import add_python_model, parameters
from tests.support.run_server import run_server, server_config

from penstock_client import AsyncClient

pytestmark = pytest.mark.any_transport

README = Path(__file__).resolve().parents[2] / "server" / "penstock" / "worker" / "README.md"
EXAMPLES = dict(
    zip(
        ("native", "triton"),
        re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL),
        strict=True,
    )
)


@pytest.mark.parametrize("kind", EXAMPLES)
async def test_example_answers(tmp_path: Path, kind: str) -> None:
    add_python_model(tmp_path, "plain", EXAMPLES[kind])
    add_python_model(tmp_path, "told", EXAMPLES[kind], config=parameters(factor=3))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    config = server_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        plain = await client.infer("plain", {"x": x})
        told = await client.infer("told", {"x": x})
    np.testing.assert_array_equal(plain["y"], 2 * x)
    np.testing.assert_array_equal(told["y"], 3 * x)
