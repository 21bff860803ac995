"""The native core. Only `penstock.core` imports it.

Requests go in as the bytes of a ModelInferRequest and come back as the bytes of a response: no
tensor becomes a Python object on the way. Calls marked "blocking" release the GIL; run them in a
thread. Failures raise `penstock.errors.CoreError` subclasses, except `Engine.infer`, whose
failures are completions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

ABI_VERSION: int
HAS_TRANSPORT: bool

class TensorSpec:
    """An input or output as the model file declares it.

    dims include the batch dimension; -1 = any.
    """

    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def dims(self) -> list[int]: ...
    @property
    def optional(self) -> bool: ...

class LoadedModel:
    """A model file opened by its backend; holds weights. A Version takes requests for it."""

    @property
    def inputs(self) -> list[TensorSpec]: ...
    @property
    def outputs(self) -> list[TensorSpec]: ...
    @property
    def max_batch_size(self) -> int | None:
        """What a model that is code says of itself; None: it follows from the tensors."""
    @property
    def is_decoupled(self) -> bool: ...
    @property
    def most_rows(self) -> int | None: ...
    @property
    def batches_dynamically(self) -> bool: ...
    @property
    def runs_on(self) -> str:
        """Where batches are computed: "CPU", "GPU 0 (NVIDIA H200), CUDAExecutionProvider"."""
    @property
    def backend_description(self) -> str:
        """The engine's name and version."""

class InputSpec:
    """An input as clients see it: dims without the batch dimension.

    reshape: what the model file wants instead of dims.
    """

    def __init__(
        self,
        name: str,
        datatype: str,
        dims: Sequence[int],
        reshape: Sequence[int] | None = None,
        optional: bool = False,
    ) -> None: ...

class OutputSpec:
    """An output as clients see it; labels serve the classification extension."""

    def __init__(
        self,
        name: str,
        datatype: str,
        dims: Sequence[int],
        reshape: Sequence[int] | None = None,
        labels: Sequence[str] = (),
    ) -> None: ...

class QueuePolicy:
    """One priority level's queue.

    max_queue_size: requests, 0 = unlimited. default_timeout_us: microseconds, 0 = none.
    honour_request_timeout: the request's own `timeout` counts (Triton's allow_timeout_override;
    it may only shorten a default). delay_on_timeout: DELAY instead of REJECT.
    """

    def __init__(
        self,
        max_queue_size: int = 0,
        default_timeout_us: int = 0,
        delay_on_timeout: bool = False,
        honour_request_timeout: bool = True,
    ) -> None: ...

class VersionSpec:
    """How a version is served.

    queue_policies: one per priority level, highest first, at least one.
    """

    def __init__(
        self,
        *,
        model_name: str,
        version: int,
        inputs: Sequence[InputSpec],
        outputs: Sequence[OutputSpec],
        max_batch_size: int = 0,
        preferred_batch_sizes: Sequence[int] = (),
        max_queue_delay_us: int = 0,
        preserve_ordering: bool = False,
        dynamic_batching: bool = True,
        default_priority_level: int = 1,
        queue_policies: Sequence[QueuePolicy] = ...,
        instance_count: int = 1,
        decoupled: bool = False,
        max_background_batch_size: int = 0,
    ) -> None: ...

class Version:
    """A version of a model with its queue and instances. Thread-safe.

    Life: created (no thread yet) -> warm_up* -> start -> [Engine.set_serving] -> drain.
    """

    @property
    def model_name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def runs_on(self) -> str:
        """As its LoadedModel's."""
    def warm_up(self, request: bytes) -> None:
        """Blocking. Runs a ModelInferRequest on every instance; before start only."""
    def start(self) -> None:
        """Starts one thread per instance. A version that is never started is freed quietly."""
    def add_instance(self, warm_ups: Sequence[bytes]) -> None:
        """Blocking. One more instance; each of these ModelInferRequests runs on it first."""
    def remove_instance(self, timeout_s: float) -> bool:
        """Blocking. The latest instance ends what it has, and is freed.

        False when that takes longer than timeout_s: it takes no batch any more, and the next call,
        or drain, frees it.
        """
    def drain(self, timeout_s: float) -> bool:
        """Blocking. Takes nothing new, finishes what is queued and running, stops the threads.

        False when that took longer than timeout_s: what was queued has then been failed
        UNAVAILABLE and running batches are left to end on their own.
        """
    def set_digest(self, digest: str) -> None:
        """What it was loaded from, for responses that are asked to say so; before it serves."""
    def is_available(self) -> bool:
        """Whether an instance is there to run batches."""
    def stats(self) -> dict[str, Any]:
        """Counters since creation; the keys are those of bindings/bind_version.cc."""

class Call:
    """A request under way."""

    def cancel(self) -> None:
        """The caller has gone.

        Queued: completed CANCELLED at once, never run. Running: CANCELLED when its batch ends, or
        when its model, which is told, finishes it.
        """
    @property
    def is_decoupled(self) -> bool:
        """Whether its responses are none, one or many, and come before its outcome."""
    @property
    def waits(self) -> bool:
        """Whether it waits for its model to be loaded: a completion with code -2 ends that."""
    def taken(self, count: int, size_bytes: int) -> None:
        """The client has taken so many responses: its model may send as many more.

        size_bytes: theirs, with the five bytes of gRPC's prefix for each.
        """

    def retry_after_ms(self) -> int:
        """Once it has failed: when to try again, as the status says; negative = unknown."""

class SharedMemory:
    """The regions of memory that clients registered: the system's and GPUs'. Thread-safe.

    Every call raises UnimplementedError unless the engine allows it.
    """

    def check_allowed(self) -> None: ...
    def register(self, *, name: str, key: str, offset: int, byte_size: int) -> None:
        """Blocking. Opens the object `key` and gives a part of it a name."""
    def unregister(self, name: str) -> None:
        """Blocking. Forgets a name, or with "" all; requests that use the region go on."""
    def regions(self, name: str) -> list[tuple[str, str, int, int]]:
        """(name, key, offset, byte_size) of every region, or of the one called `name`."""
    def check_cuda_usable(self) -> None:
        """Blocking, the first time. UnavailableError says why no GPU's memory can be registered."""
    def register_cuda(self, *, name: str, handle: bytes, device_id: int, byte_size: int) -> None:
        """Blocking. Opens the memory that a process exports as `handle`, and gives it a name."""
    def unregister_cuda(self, name: str) -> None:
        """Blocking. As `unregister`, of regions on GPUs."""
    def cuda_regions(self, name: str) -> list[tuple[str, int, int]]:
        """(name, device_id, byte_size) of every region on a GPU, or of the one called `name`."""

class Caller:
    """Who makes a call, as its headers say: read once for a call, also for a long stream."""

    @property
    def credential(self) -> str:
        """The key or token it sent, where the policy has tokens, else empty. A secret."""
    @staticmethod
    def server() -> Caller:
        """The server itself: for the requests of work that it let in before, as of a batch job."""

class Principal:
    """Who a caller turned out to be, and what that allows.

    name: as texts call it, for instance "key 'team-a'". per_second: calls, 0 = unlimited.
    max_request_bytes: 0 = no bound of its own.
    """

    def __init__(
        self,
        *,
        name: str,
        groups: Sequence[str],
        per_second: float = 0.0,
        burst: float = 1.0,
        max_request_bytes: int = 0,
    ) -> None: ...

class AccessPolicy:
    """What is asked of callers.

    restricted: by group, the header (in lower case) and the value it must have. needs_identity: a
    key or token, but in the open groups. has_tokens: what is no key may be a token, to be verified.
    connection_rate: calls per second on one connection, 0 = unlimited.
    """

    def __init__(
        self,
        *,
        restricted: Mapping[str, tuple[str, str]] = ...,
        needs_identity: bool = False,
        open_groups: Sequence[str] = (),
        has_tokens: bool = False,
        connection_rate: float = 0.0,
        connection_burst: float = 1.0,
    ) -> None: ...

class Access:
    """The engine's door. Thread-safe."""

    @property
    def is_active(self) -> bool:
        """Whether anything is asked of callers; if not, there is no need for `identify`."""
    def identify(self, metadata: Sequence[tuple[str, str | bytes]], connection: str) -> Caller:
        """Reads a call's metadata; `connection` is the same for all calls of a connection."""
    def needs_verification(self, group: str, caller: Caller) -> bool:
        """Whether the caller's token must be verified before it can call the group."""
    def admit_verification(self, caller: Caller) -> None:
        """Raises CoreError where the caller's connection may not have a token verified now."""
    def accept(self, caller: Caller, principal: Principal, valid_s: float) -> None:
        """The caller's token is good, for so long."""
    def refuse(self, caller: Caller, code: int, reason: str, valid_s: float) -> None:
        """The caller's token is refused with this status, for so long."""
    def forget_tokens(self) -> None:
        """Every token is to be verified anew."""
    def set_keys(self, keys: Sequence[tuple[bytes, Principal]]) -> None:
        """From now on these keys, by SHA-256, and no others; also for calls under way."""
    def authorize(self, group: str, caller: Caller | None = None) -> None:
        """Whether the caller may call the group; raises when not. For streams at their start."""
    def admit(self, group: str, size_bytes: int, caller: Caller | None = None) -> None:
        """The admission check of a message of any group but inference, which `infer` admits."""

Completion = tuple[object, int, bytes | list[bytes] | None, str | None]
"""(tag, code, response bytes or None, error message or None), the outcome of a request.

A decoupled request's responses come before it, code -1, as a list of bytes; its outcome has bytes
only where that is a message too: a failure, or the empty response that the request asked for.
Code -2: the model that the request waited for was loaded; flush soon, its outcome follows.
"""

class ServerCall:
    """A call of the native transport that Python answers, or a token of whose caller it verifies.

    Thread-safe. Nothing raises after the call's end; it does nothing then.
    """

    @property
    def path(self) -> str: ...
    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Names in lower case; values of "-bin" names are bytes. Without gRPC's own."""
    @property
    def peer(self) -> str:
        """As gRPC writes it: ipv4:127.0.0.1:4711, ipv6:%5B::1%5D:4711, unix:."""
    @property
    def connection(self) -> str:
        """Tells its connection from all others, also where they have one peer."""
    @property
    def auth_properties(self) -> tuple[tuple[str, bytes], ...]:
        """What TLS tells of the client, in gRPC's words; a key may come again. Plain text: none."""
    @property
    def deadline_ns(self) -> int:
        """On time.monotonic_ns(); 0 = none."""
    @property
    def caller(self) -> Caller | None:
        """Whose token is to be verified; of CALL_VERIFY only."""
    def read(self) -> None:
        """One at a time; answered by an event."""
    def send_initial_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None: ...
    def write(self, message: bytes) -> None:
        """One at a time; answered by an event. Sends initial metadata first if nobody has."""
    def finish(
        self, code: int, details: str, trailing_metadata: Sequence[tuple[str, str | bytes]]
    ) -> None:
        """Sends the status, after what was written."""
    def verified(self, code: int = 0, message: str = "", retry_after_ms: int = -1) -> None:
        """The verification has ended. A code ends the call; with 0 the core decides.

        retry_after_ms: when to come back; -1 = unknown.
        """

class Transport:
    """GRPC over HTTP/2 on threads of its own; absent where HAS_TRANSPORT is False.

    ModelInfer and ModelStreamInfer never reach Python; every other call is handed over by events.
    For one thread, but stop may run on another.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        io_threads: int = 0,
        max_message_bytes: int,
        max_connections: int,
        max_concurrent_streams: int,
        max_inflight_per_stream: int,
        max_header_bytes: int = 16384,
        compression: bool = True,
        response_compression_level: int = 0,
        keepalive_time_ms: int,
        keepalive_timeout_ms: int,
        min_ping_interval_ms: int,
        max_connection_age_ms: int = 0,
        max_connection_age_grace_ms: int = 0,
        max_connection_idle_ms: int = 0,
        max_buffered_bytes: int = 0,
        access_log: bool = False,
    ) -> None: ...
    def use_tls(
        self,
        *,
        certificate: str,
        key: str,
        client_roots: str = "",
        require_client_certificate: bool = False,
    ) -> None:
        """Paths. Raises InvalidArgumentError where the files will not do."""
    def listen(self, fd: int) -> None:
        """A bound socket that listens; the descriptor is duplicated."""
    def share_listeners(self) -> None:
        """Another process has the listening sockets: drain does not shut them down."""
    def start(self) -> None: ...
    def set_loaded(self) -> None:
        """The models of the start are loaded: NOT_FOUND from now on, UNAVAILABLE before."""
    def close_streams(self) -> None:
        """ModelStreamInfer calls read no further, answer what they read and end UNAVAILABLE."""
    def drain(self) -> None:
        """Stops listening and tells clients to make new calls elsewhere."""
    def stop(self, timeout_s: float = 30.0) -> bool:
        """Blocking. Ends what is left and joins the threads; False: a request still runs."""
    @property
    def event_fd(self) -> int:
        """An eventfd, readable while events wait."""
    def take_events(self) -> list[tuple[ServerCall, int, Any]]:
        """(call, event, payload), oldest first; see penstock.core.CallEvent. Clears the eventfd.

        The payload of MESSAGE is its bytes; of CLOSED 0 once the status was sent, 1 where the
        client left, 4 where its deadline passed.
        """
    def stats(self) -> dict[str, int]: ...

class Engine:
    """Models by name, admission and completions.

    Thread-safe, but infer, flush and take_completions are for one thread.
    """

    def __init__(
        self,
        *,
        backend_directories: Sequence[str],
        max_inflight_requests: int = 0,
        max_request_bytes: int = 0,
        max_background_bytes: int = 0,
        max_response_bytes: int = 0,
        allow_client_shm: bool = False,
        max_waiting_requests: int = 256,
        access: AccessPolicy | None = None,
    ) -> None: ...
    @property
    def shared_memory(self) -> SharedMemory: ...
    @property
    def access(self) -> Access: ...
    def set_backend_options(self, backend: str, options: Mapping[str, str]) -> None: ...
    def load_model(
        self,
        *,
        backend: str,
        model_name: str,
        version: int,
        path: str,
        model_directory: str,
        parameters: Mapping[str, str],
        config_json: str = ...,
        devices: Sequence[str] = ...,
    ) -> LoadedModel:
        """Blocking. Opens a model file."""
    def create_version(self, model: LoadedModel, spec: VersionSpec) -> Version:
        """Blocking. Checks spec against the file's signature and makes the instances."""
    def set_serving(
        self,
        model_name: str,
        versions: Sequence[Version],
        unready: Sequence[int] = (),
        loads_on_demand: bool = False,
    ) -> None:
        """Replaces, in one step, what answers for model_name; the greatest version is the default.

        `unready` versions are known but answer UNAVAILABLE "... is not at ready state". With no
        versions the model is known but has none available. The caller drains the versions it took
        out: requests that reached them are finished, requests under way to them land on the new
        ones.

        loads_on_demand: while there are no versions, requests wait for some, max_waiting_requests
        of them at most; the first one is a demand.
        """
    @property
    def demand_fd(self) -> int:
        """Readable while models are asked for that are to be loaded on demand."""
    def take_demands(self) -> list[str]:
        """Their names; each is answered by set_serving with versions, end_wait, or give_up_load."""
    def end_wait(self, model_name: str, code: int, message: str) -> None:
        """The model will not be loaded for now: requests that wait for it fail with this."""
    def give_up_load(self, model_name: str) -> None:
        """Nobody waited, and the load was given up: whoever has come since is a new demand."""
    def set_loadable(self, model_name: str, versions: Sequence[int]) -> None:
        """A load would bring these: until it is answered, requests for others end at once."""
    def waiting(self, model_name: str) -> int:
        """How many requests wait for the model to be loaded."""
    def forget(self, model_name: str) -> None:
        """The name becomes unknown; the caller drains its versions."""
    def infer(
        self,
        request: bytes,
        deadline_ns: int,
        tag: object,
        stream: bool,
        caller: Caller | None = None,
        background: bool = False,
    ) -> Call:
        """Parses, admits and queues a ModelInferRequest; never raises for a bad request.

        Nothing runs before `flush`: what a few turns of the loop bring in can form one batch.

        deadline_ns: on time.monotonic_ns(), 0 = none. The outcome is a completion carrying `tag`.
        With stream, payloads are ModelStreamInferResponse bytes, for failures too (code says
        which it is). With background the request is batch work: it fills batches that other
        requests leave open, and runs by itself where no other waits. It never runs in `flush`.
        """
    def flush(self) -> list[Completion]:
        """Runs what `infer` queued since the last flush: here, or on the models' instances.

        A quick model's batch runs on the calling thread; waking an instance would cost more.
        Returns the completions that wait then, as `take_completions` does.
        """
    @property
    def completion_fd(self) -> int:
        """An eventfd, readable when completions wait."""
    def take_completions(self) -> list[Completion]:
        """All completions that wait, oldest first. Clears the eventfd."""
    def stop_accepting(self) -> None:
        """From now on inference is refused UNAVAILABLE; what was accepted goes on."""
    def wait_idle(self, timeout_s: float) -> bool:
        """Blocking. True once no accepted request is without its completion taken."""
    def inflight(self) -> int: ...
    def stats(self) -> dict[str, Any]:
        """Engine-wide counters: accepted, completed by code, refused by reason, inflight."""
    def shutdown(self, timeout_s: float = 30.0) -> bool:
        """Blocking. Finishes or fails what is queued, joins every thread. Before exit.

        False: an instance did not end in time; the process should then end without waiting for it.
        Idempotent.
        """

def set_logging(*, debug: bool, info: bool, warning: bool, error: bool, json: bool) -> None:
    """Which of the core's own lines are written, and whether as JSON. At any time."""

def encode_stream_error(message: str, request_id: str, model_name: str, version: str) -> bytes: ...

LOAD_OUTCOMES: tuple[str, ...]
"""Names of what ends a request of a `LoadClient`, by its number; 0 to 16 are gRPC's codes."""

class LoadClient:
    """Sends requests from a native thread and collects the answers, for load tests.

    Every request completes exactly once. Absent where the core was built without nghttp2.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        path: str,
        connections: int = 1,
        streams: int = 0,
        timeout_ms: int = 0,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Blocking. Connects; UnavailableError where nobody listens.

        path: "/package.Service/Method". streams: that many long-lived ones instead of unary calls.
        timeout_ms: deadline of each call, 0 = none.
        """
    def submit(self, requests: Sequence[tuple[int, bytes]]) -> None:
        """Sends (tag, serialised message) each; FailedPreconditionError once closed."""
    def take(self, timeout_s: float) -> list[tuple[int, int, bytes, int]]:
        """Blocking. Completions, as soon as there is one: tag, outcome, payload, nanoseconds.

        The payload is the answer's message, or the text of a failure. Empty when nothing came in
        time, or when the client is closed and everything was taken.
        """
    def in_flight(self) -> int: ...
    def close(self) -> None:
        """Blocking. What has no answer completes so, and can still be taken. Idempotent."""
