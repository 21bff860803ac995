"""A client for servers that speak the Open Inference (KServe v2) gRPC protocol.

    import numpy as np
    from penstock_client import Client

    with Client("localhost:8001") as client:
        result = client.infer("digits", {"X": np.zeros((1, 64), np.float32)})

`Client` blocks, `AsyncClient` is for asyncio; both take and give numpy arrays. What can go wrong
is in `penstock_client.errors`, which datatypes there are in `penstock_client.tensors`.
"""

from penstock_client._aio import AsyncClient
from penstock_client._infer import InferRequest, InferResult
from penstock_client._job_clients import AsyncJobs, Jobs
from penstock_client._jobs import Job, JobSpec
from penstock_client._mock_transport import AsyncMockTransport, MockTransport
from penstock_client._records import (
    BatchStatistics,
    CudaMemoryRegion,
    Duration,
    MemoryUsage,
    ModelIndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    SharedMemoryRegion,
    TensorMetadata,
)
from penstock_client._retry import Odds, RetryPolicy
from penstock_client._security import Tls
from penstock_client._sync import Client
from penstock_client._transport import AsyncTransport, Call, Transport
from penstock_client.cuda_memory import CudaMemory
from penstock_client.errors import (
    AbortedError,
    AlreadyExistsError,
    CancelledError,
    ClientClosedError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PenstockError,
    PermissionDeniedError,
    ProtocolError,
    ResourceExhaustedError,
    RpcError,
    SharedMemoryError,
    StreamResponseError,
    TensorError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
)
from penstock_client.regions import MemoryRegion, SharedRoom, SharedTensor
from penstock_client.shared_memory import SharedMemory
from penstock_client.tensors import Tensor

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncJobs",
    "AsyncMockTransport",
    "AsyncTransport",
    "BatchStatistics",
    "Call",
    "CancelledError",
    "Client",
    "ClientClosedError",
    "CudaMemory",
    "CudaMemoryRegion",
    "DataLossError",
    "DeadlineExceededError",
    "Duration",
    "FailedPreconditionError",
    "InferRequest",
    "InferResult",
    "InternalError",
    "InvalidArgumentError",
    "Job",
    "JobSpec",
    "Jobs",
    "MemoryRegion",
    "MemoryUsage",
    "MockTransport",
    "ModelIndexEntry",
    "ModelMetadata",
    "ModelStatistics",
    "NotFoundError",
    "Odds",
    "OutOfRangeError",
    "PenstockError",
    "PermissionDeniedError",
    "ProtocolError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "RpcError",
    "ServerMetadata",
    "SharedMemory",
    "SharedMemoryError",
    "SharedMemoryRegion",
    "SharedRoom",
    "SharedTensor",
    "StreamResponseError",
    "Tensor",
    "TensorError",
    "TensorMetadata",
    "Tls",
    "Transport",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
]
