"""One HTTP request and its answer, as the handlers of routes see them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.types import Receive, Scope, Send

from penstock_gateway import body, jsons
from penstock_gateway._messages import pb
from penstock_gateway.errors import HttpError
from penstock_gateway.infer import Wants, render
from penstock_gateway.metadata import MetadataFilter
from penstock_gateway.options import Options
from penstock_gateway.protocol import ABOUT
from penstock_gateway.upstream import Call, Upstream, peer_of

__all__ = ["INFERENCE_HEADER", "SAGEMAKER_BINARY", "Exchange"]

INFERENCE_HEADER = "Inference-Header-Content-Length"
_INFERENCE_HEADER = INFERENCE_HEADER.lower().encode()
SAGEMAKER_BINARY = "application/vnd.sagemaker-triton.binary+json"
_JSON = "application/json"
_JOINED_BYTES = 65536
"""Answers up to this size are sent in one part: copying them costs less than more parts."""
_BINARY = "application/octet-stream"
_LOADS = ("penstock-load-on-demand", "true")
"""Metadata by which Penstock loads a model to tell its metadata; others do not know it."""


class Exchange:
    """Reads the request, makes the calls it needs, and answers once.

    Threading: confined to the event loop.
    Lifecycle: made for a request -> any of its methods -> `close`.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        upstream: Upstream,
        options: Options,
        lease: body.Lease,
        metadata: MetadataFilter,
    ) -> None:
        self.method: str = scope["method"]
        self.upstream = upstream
        self.options = options
        self.has_begun = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._lease = lease
        self._filter = metadata
        self._metadata: tuple[tuple[str, str], ...] | None = None

    def close(self) -> None:
        """Gives back what the body took."""
        self._lease.release()

    def note(self, model: str, version: str = "", request_id: str = "") -> None:
        """What the request is about, for who logs it (`ABOUT` of the scope)."""
        self._scope[ABOUT] = (model, version, request_id)

    def path(self, name: str) -> str:
        """A part of the path; "" where the route has none of that name."""
        value: str = self._scope["path_params"].get(name, "")
        return value

    def header(self, name: bytes) -> str | None:
        """A header of the request, by its name in lower case."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def check_origin(self) -> None:
        """Refuses what a page of another site makes a browser send.

        CORS only keeps the answer from such a page; a POST without a preflight would be done.
        """
        origin = self.header(b"origin")
        if origin is None or self.method == "GET":
            return
        allowed = self.options.cors_origins
        if "*" in allowed or origin in allowed:
            return
        if origin.partition("://")[2] != self.header(b"host"):
            raise HttpError(403, "pages of this origin may not call; see --http-cors-origin")

    def call(self, rpc: str, **details: Any) -> Call:
        """A call on behalf of whoever asks."""
        if self._metadata is None:
            self._metadata = self._filter.read(self._scope["headers"])
        client = self._scope.get("client")
        return Call(rpc, self._metadata, peer_of(client), **details)

    async def unary(self, rpc: str, message: Any, answer: Any, **details: Any) -> Any:
        """The answer to a message; `answer` is its class."""
        call = self.call(rpc, **details)
        return answer.FromString(await self.upstream.unary(call, message.SerializeToString()))

    async def model_to_ask(self, model: str, version: str = "") -> Any:
        """The metadata of a model that is about to be asked: it is loaded for that if need be."""
        call = self.call("ModelMetadata")
        call = replace(call, metadata=(*call.metadata, _LOADS))
        request = pb.ModelMetadataRequest(name=model, version=version)
        answer = await self.upstream.unary(call, request.SerializeToString())
        return pb.ModelMetadataResponse.FromString(answer)

    async def body(self, *, is_json: bool = False) -> bytes:
        """The body of the request, inflated; HttpError where it is over a limit."""
        limit_bytes = self.options.max_body_bytes
        if is_json:
            limit_bytes = min(limit_bytes, self.options.max_json_bytes)
        announced = self._headers.get(b"content-length")
        data = await body.read(self._receive, announced, limit_bytes, self._lease)
        encoding = self.header(b"content-encoding")
        if encoding is None:
            return data
        return await body.inflate(data, encoding, limit_bytes, self._lease)

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object.

        It takes up to 45 times the bytes of its text: let it go before the next await.
        """
        data = await self.body(is_json=True)
        return jsons.as_object(jsons.loads(data), "the request") if data.strip() else {}

    @property
    def is_all_json(self) -> bool:
        """Whether no bytes follow the JSON of an inference."""
        return _INFERENCE_HEADER not in self._headers

    def check_json(self, size_bytes: int) -> None:
        """HttpError where JSON of an inference is over its limit."""
        limit_bytes = self.options.max_json_bytes
        if size_bytes > limit_bytes:
            message = f"the request's JSON is larger than {limit_bytes} bytes"
            raise HttpError(413, f"{message}; tensors may follow it as bytes")

    def header_length(self, size_bytes: int) -> int | None:
        """Inference-Header-Content-Length; None where the request has none."""
        text = self.header(_INFERENCE_HEADER)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > size_bytes:
            raise HttpError(
                400,
                f"inference header size should be in range (0, {size_bytes}), got: {text[:32]}",
            )
        self.check_json(int(text))
        return int(text)

    async def answer_json(self, value: object, status: int = 200) -> None:
        """JSON."""
        await self.answer([jsons.dumps(value)], {"content-type": _JSON}, status)

    async def answer_infer(self, reply: bytes, wants: Wants, *, sagemaker: bool = False) -> None:
        """The response of a model, compressed where the client takes that.

        With `sagemaker` the length of the JSON is told as SageMaker's clients tell it.

        No other answer is: tritonclient's aio client says of all its requests that it takes
        compressed answers, and inflates those of inference only.
        """
        parts, header_length = render(reply, wants)
        headers = {"content-type": _JSON}
        if header_length is not None and sagemaker:
            headers = {"content-type": f"{SAGEMAKER_BINARY};json-header-size={header_length}"}
        elif header_length is not None:
            headers = {"content-type": _BINARY, INFERENCE_HEADER: str(header_length)}
        accepted = self.header(b"accept-encoding")
        if accepted is not None and (encoding := body.choose_encoding(accepted)):
            compressed = await body.compress(parts, encoding)
            if compressed is not None:
                parts = [compressed]
                headers["content-encoding"] = encoding
            headers["vary"] = "accept-encoding"
        await self.answer(parts, headers)

    async def answer(self, parts: list[bytes], headers: dict[str, str], status: int = 200) -> None:
        """The whole answer; large parts are sent one after the other, uncopied."""
        size_bytes = sum(map(len, parts))
        await self.begin(status, {**headers, "content-length": str(size_bytes)})
        if size_bytes <= _JOINED_BYTES:
            parts = [b"".join(parts)]
        for part in parts[:-1]:
            await self.send(part)
        await self.send(parts[-1], is_last=True)

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        """The status and the headers."""
        self.has_begun = True
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, data: bytes, *, is_last: bool = False) -> None:
        """A part of an answer that `begin` began; returns when the next may be sent."""
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
