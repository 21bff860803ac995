"""A scripted Open Inference server on a real socket: for clients, without the product's server.

    with FakeServer(infer) as server:
        Client(server.url).infer(...)

`infer` and `stream` are plain functions on a thread pool; they get the message and gRPC's context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

from penstock_client._messages import METHODS, SERVICE, pb

Infer = Callable[[Any, grpc.ServicerContext], Any]
Stream = Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]]


def echo(request: Any, context: grpc.ServicerContext) -> Any:
    """Gives every input back as an output of the same name."""
    outputs = [
        pb.ModelInferResponse.InferOutputTensor(name=t.name, datatype=t.datatype, shape=t.shape)
        for t in request.inputs
    ]
    return pb.ModelInferResponse(
        model_name=request.model_name,
        model_version="1",
        id=request.id,
        outputs=outputs,
        raw_output_contents=request.raw_input_contents,
    )


def echo_stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    """Echoes; a request without inputs fails, for good when the caller wants a real status."""
    for request in requests:
        if request.inputs:
            yield pb.ModelStreamInferResponse(infer_response=echo(request, context))
            continue
        if ("triton_grpc_error", "true") in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected 1 inputs but got 0")
        failed = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
        yield pb.ModelStreamInferResponse(
            error_message="expected 1 inputs but got 0", infer_response=failed
        )


class FakeServer:
    """Serves on a free port of the loopback interface from `with` to its end.

    `answers` are constant answers of further RPCs by name, `port` asks for a certain port,
    `credentials` for TLS. `services` are further ones.
    """

    def __init__(
        self,
        infer: Infer = echo,
        stream: Stream = echo_stream,
        *,
        answers: Mapping[str, Any] | None = None,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        services: Sequence[grpc.GenericRpcHandler[Any, Any]] = (),
    ) -> None:
        self._pool = ThreadPoolExecutor(max_workers=8)
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(self._pool, options=options)
        self._server.add_generic_rpc_handlers((_handlers(infer, stream, answers or {}), *services))
        address = f"localhost:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self.url = f"localhost:{self.port}"

    def __enter__(self) -> FakeServer:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


def _serialize(message: Any) -> bytes:
    """A message, or bytes that are to go out as they are."""
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


def _unary_handler(name: str, answer: Infer) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(answer, METHODS[name].request.FromString, _serialize)


def _handlers(
    infer: Infer, stream: Stream, answers: Mapping[str, Any]
) -> grpc.GenericRpcHandler[Any, Any]:
    def constant(message: Any) -> Infer:
        return lambda request, context: message

    handlers = {name: _unary_handler(name, constant(message)) for name, message in answers.items()}
    handlers["ModelInfer"] = _unary_handler("ModelInfer", infer)
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        stream, METHODS["ModelStreamInfer"].request.FromString, _serialize
    )
    return grpc.method_handlers_generic_handler(SERVICE, handlers)
