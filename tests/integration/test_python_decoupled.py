"""Decoupled Python models on the wire: generators and Triton's response senders."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.models.python_files import add_python_model
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire

GENERATOR = """
    import os
    import pathlib
    import numpy as np
    class Model:
        inputs = {"n": ("INT32", (1,))}
        outputs = {"i": ("INT32", (1,))}
        def load(self, context):
            self.mark = pathlib.Path(context.model_directory) / "closed"
        def predict(self, batch):
            n = int(batch["n"][0, 0])
            try:
                for i in range(abs(n)):
                    if n < 0 and i == 2:
                        raise ValueError("two is enough")
                    if n == 77 and i == 3:
                        os._exit(6)
                    yield {"i": np.array([[i]], np.int32)}
            except GeneratorExit:
                self.mark.touch()
                raise
"""

SENDERS = """
    import threading
    import numpy as np
    import triton_python_backend_utils as pb_utils
    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(config):
            config.add_input({"name": "n", "data_type": "TYPE_INT32", "dims": [1]})
            config.add_output({"name": "i", "data_type": "TYPE_INT32", "dims": [1]})
            config.set_max_batch_size(4)
            config.set_model_transaction_policy({"decoupled": True})
            return config
        def initialize(self, args):
            self.threads = []
        def execute(self, requests):
            for request in requests:
                thread = threading.Thread(target=self.answer, args=(request,))
                self.threads.append(thread)
                thread.start()
        def answer(self, request):
            sender = request.get_response_sender()
            n = int(pb_utils.get_input_tensor_by_name(request, "n").as_numpy()[0, 0])
            for i in range(n):
                if sender.is_cancelled():
                    break
                tensor = pb_utils.Tensor("i", np.array([[i]], np.int32))
                response = pb_utils.InferenceResponse(output_tensors=[tensor])
                if (n, i) == (4, 3):
                    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                    return
                sender.send(response)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        def finalize(self):
            for thread in self.threads:
                thread.join()
"""

WIDE = """
    import numpy as np
    class Model:
        inputs = {"n": ("INT32", (1,))}
        outputs = {"i": ("INT32", (-1,))}
        def predict(self, batch):
            for size in (1, int(batch["n"][0, 0])):
                yield {"i": np.zeros((1, size), np.int32)}
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    add_python_model(tmp_path, "generator", GENERATOR)
    add_python_model(tmp_path, "senders", SENDERS)
    async with run_server(server_config(tmp_path)) as started:
        yield started


def count(model: str, n: int, request_id: str = "") -> bytes:
    request = wire.ModelInferRequest(model_name=model, id=request_id)
    request.inputs.add(name="n", datatype="INT32", shape=[1, 1])
    request.raw_input_contents.append(np.array([n], np.int32).tobytes())
    return bytes(request.SerializeToString())


async def replies(call: Any) -> list[Any]:
    return [wire.ModelStreamInferResponse.FromString(data) async for data in call]


def numbers(found: list[Any], request_id: str = "") -> list[int]:
    return [
        int(np.frombuffer(reply.infer_response.raw_output_contents[0], np.int32)[0])
        for reply in found
        if not reply.error_message and reply.infer_response.id == request_id
    ]


@pytest.mark.parametrize("model", ["generator", "senders"])
async def test_any_number_of_responses_come_in_order(server: RunningServer, model: str) -> None:
    requests = [count(model, 500, "a"), count(model, 0, "b"), count(model, 3, "c")]
    async with server.client() as client:
        found = await replies(client.stream(requests))
    assert numbers(found, "a") == list(range(500))
    assert numbers(found, "b") == []
    assert numbers(found, "c") == [0, 1, 2]


@pytest.mark.parametrize("empty_final", [False, True])
async def test_response_that_is_sent_as_the_last_is_final(
    server: RunningServer, empty_final: bool
) -> None:
    request = wire.ModelInferRequest.FromString(count("senders", 4))
    request.parameters["triton_enable_empty_final_response"].bool_param = empty_final
    async with server.client() as client:
        found = await replies(client.stream([request.SerializeToString()]))
    assert numbers(found) == [0, 1, 2, 3]
    assert [
        reply.infer_response.parameters["triton_final_response"].bool_param for reply in found
    ] == [False, False, False, True]


async def test_response_over_the_limit_fails_its_request_and_the_stream_goes_on(
    tmp_path: Path,
) -> None:
    add_python_model(tmp_path, "wide", WIDE)
    config = server_config(tmp_path, max_message_bytes=2048)
    async with run_server(config) as server, server.client() as client:
        call = client.stream()
        await call.write(count("wide", 1000, "f"))
        await call.read()
        failed = wire.ModelStreamInferResponse.FromString(await call.read())
        await call.write(count("wide", 2, "g"))
        found = [wire.ModelStreamInferResponse.FromString(await call.read()) for _ in range(2)]
        call.cancel()
    assert "Sent message larger than max" in failed.error_message
    assert numbers(found, "g") == [0, 0]


async def test_exception_is_one_reply_and_the_stream_goes_on(server: RunningServer) -> None:
    async with server.client() as client:
        found = await replies(client.stream([count("generator", -5, "f"), count("generator", 2)]))
    (failed,) = [reply for reply in found if reply.error_message]
    assert "ValueError: two is enough" in failed.error_message
    assert numbers(found, "f") == [0, 1]
    assert numbers(found) == [0, 1]


async def test_client_that_leaves_closes_the_generator(
    server: RunningServer, tmp_path: Path
) -> None:
    async with server.client() as client:
        call = client.stream()
        await call.write(count("generator", 1_000_000_000))
        await call.read()
        call.cancel()
        while not (tmp_path / "generator" / "closed").exists():
            await client.unary("ServerLive", b"")
        assert len(await replies(client.stream([count("generator", 2)]))) == 2


async def test_client_that_does_not_read_holds_up_itself_only(server: RunningServer) -> None:
    async with server.client() as hoarder, server.client() as client:
        call = hoarder.stream()
        await call.write(count("senders", 1_000_000))
        await call.read()
        for _ in range(3):
            assert len(await replies(client.stream([count("senders", 50)]))) == 50
        call.cancel()


async def test_worker_that_ends_fails_its_streams(server: RunningServer) -> None:
    async with server.client() as client:
        found = await replies(client.stream([count("generator", 77)]))
    assert numbers(found) == [0, 1, 2]
    assert "its worker exited with code 6" in found[-1].error_message
