"""Requests, responses and senders of `triton_python_backend_utils`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from penstock.worker.pb_tensor import Tensor, TritonError, TritonModelException
from penstock.worker.wire import Request

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2
TRITONSERVER_MEMORY_GPU = 0
TRITONSERVER_MEMORY_CPU = 1


class PreferredMemory:
    """Where a response's outputs had better be; here always in the CPU's memory."""

    TRITONSERVER_MEMORY_GPU = TRITONSERVER_MEMORY_GPU
    TRITONSERVER_MEMORY_CPU = TRITONSERVER_MEMORY_CPU

    def __init__(self, preferred_memory_type: int, preferred_device_id: int = 0) -> None:
        self.preferred_memory_type = preferred_memory_type
        self.preferred_device_id = preferred_device_id


class InferenceResponse:
    """The outputs of a request, or why there are none."""

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        if parameters:
            raise TritonModelException("parameters of a response are not supported")
        for tensor in output_tensors:
            if not isinstance(tensor, Tensor):
                raise TritonModelException(
                    f"output_tensors holds a {type(tensor).__name__}, expected Tensor"
                )
        self._tensors = list(output_tensors)
        # Triton takes whatever has a text for an error.
        self._error = (
            error if error is None or isinstance(error, TritonError) else TritonError(str(error))
        )

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""
        return self._tensors

    def has_error(self) -> bool:
        """Whether it is a failure."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Why there are no outputs."""
        return self._error


class InferenceResponseSender:
    """Sends the responses to a request of a decoupled model."""

    def __init__(
        self,
        send: Callable[[InferenceResponse | None, bool], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._send = send
        self._is_cancelled = is_cancelled
        self._has_ended = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Sends a response, the final flag or both.

        Blocking: while the client has not taken enough of those before.
        """
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException(f"unable to send response. Unsupported flag: {flags}")
        is_final = bool(flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        if response is None and not is_final:
            raise TritonModelException("inference response is required without the final flag")
        if response is not None and not isinstance(response, InferenceResponse):
            raise TritonModelException(
                f"unable to send a {type(response).__name__}, expected InferenceResponse"
            )
        if self._has_ended:
            raise TritonModelException("unable to send response. Response sender has been closed")
        self._has_ended = is_final
        self._send(response, is_final)

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._is_cancelled()


class InferenceRequest:
    """A request of a batch. Requests to other models (BLS) are not supported."""

    def __init__(self, *_: object, **__: object) -> None:
        raise TritonModelException(
            "InferenceRequest: requests to other models (BLS) are not supported by this server"
        )

    @classmethod
    def of(
        cls,
        request: Request,
        inputs: list[Tensor],
        wanted: list[str],
        sender: InferenceResponseSender | None,
        is_cancelled: Callable[[], bool],
    ) -> InferenceRequest:
        """A request that a model is given."""
        made = cls.__new__(cls)
        made._request = request
        made._inputs = inputs
        made._wanted = wanted
        made._sender = sender
        made._is_cancelled = is_cancelled
        return made

    _request: Request
    _inputs: list[Tensor]
    _wanted: list[str]
    _sender: InferenceResponseSender | None
    _is_cancelled: Callable[[], bool]

    def inputs(self) -> list[Tensor]:
        """The inputs that it has."""
        return self._inputs

    def request_id(self) -> str:
        """The client's id; may be empty."""
        return self._request.id

    def correlation_id(self) -> int:
        """The sequence it is part of: 0, as sequences are not supported."""
        return 0

    def flags(self) -> int:
        """Flags of its sequence: none."""
        return 0

    def model_name(self) -> str:
        """Not known to a request that came from a client."""
        return ""

    def model_version(self) -> int:
        """Not known to a request that came from a client."""
        return -1

    def timeout(self) -> int:
        """The client's timeout in microseconds; 0 = none."""
        return self._request.timeout_us

    def parameters(self) -> str:
        """The client's parameters as a JSON object."""
        return json.dumps(self._request.parameters)

    def requested_output_names(self) -> list[str]:
        """The outputs that are wanted."""
        return self._wanted

    def set_release_flags(self, flags: int) -> None:
        """Releasing at once is the only way there is."""
        if flags != TRITONSERVER_REQUEST_RELEASE_ALL:
            raise TritonModelException(f"release flags {flags} are not supported")

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._is_cancelled()

    def get_response_sender(self) -> InferenceResponseSender:
        """What sends the responses of a decoupled model."""
        if self._sender is None:
            raise TritonModelException(
                "get_response_sender: the model is not decoupled (model_transaction_policy)"
            )
        return self._sender

    def exec(self, *_: object, **__: object) -> InferenceResponse:
        """Requests to other models are not supported."""
        raise TritonModelException(
            "InferenceRequest.exec: requests to other models (BLS) are not supported by this server"
        )

    async_exec = exec
