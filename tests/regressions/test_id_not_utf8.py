"""An id that is not UTF-8 came back with its refusal and ended the client's whole stream.

A protobuf string must be UTF-8: the client could not read the reply, and stopped reading.
"""

from pathlib import Path

from tests.support.fixture_models import write_simple
from tests.support.requests import simple_request, sums
from tests.support.run_server import run_server, server_config
from tritonclient.grpc import service_pb2 as wire

SIMPLE = simple_request(id="42").SerializeToString()
BAD = SIMPLE.replace(b"\x1a\x0242", b"\x1a\x02\xff\xfe")


async def test_refusal_of_an_id_that_is_no_text_can_be_read(tmp_path: Path) -> None:
    assert BAD != SIMPLE
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        replies = [
            wire.ModelStreamInferResponse.FromString(reply)
            async for reply in client.stream([SIMPLE, BAD, SIMPLE])
        ]
    first, refused, last = replies
    assert "id is not valid UTF-8" in refused.error_message
    assert refused.infer_response.id == ""
    for right in (first, last):
        assert sums(right.infer_response) == tuple(range(1, 17))
