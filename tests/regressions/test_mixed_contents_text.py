"""Raw and typed contents mixed: Triton's example client looks for this very sentence."""

from pathlib import Path

import grpc
import pytest
from tests.support.fixture_models import write_simple
from tests.support.requests import int32_bytes, simple_request
from tests.support.run_server import run_server, server_config


async def test_mixed_contents_are_refused_in_tritons_words(tmp_path: Path) -> None:
    write_simple(tmp_path)
    request = simple_request(raw_input_contents=[int32_bytes(*range(8))])
    request.inputs[0].contents.int_contents.extend(range(8))
    sentence = (
        "contents field must not be specified when using raw_input_contents for 'INPUT0' "
        "for model 'simple'"
    )
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary("ModelInfer", request.SerializeToString())
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == sentence
