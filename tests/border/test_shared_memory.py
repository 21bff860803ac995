"""Shared memory over the border: regions by name, errors by code, calls that free memory."""

import ctypes
import os
from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.support.core_models import make_engine
from tests.support.fixture_models import FAKE_CUDA

from penstock import _core
from penstock.errors import (
    AlreadyExistsError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnimplementedError,
)


@pytest.fixture
def key() -> Iterator[str]:
    """Of an object of 64 bytes."""
    name = f"penstock-test-{uuid4().hex}"
    path = f"/dev/shm/{name}"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    os.truncate(path, 64)
    yield f"/{name}"
    os.unlink(path)


@pytest.fixture
def memory() -> _core.SharedMemory:
    return make_engine(allow_client_shm=True).shared_memory


def test_regions_are_listed_by_name_and_forgotten(memory: _core.SharedMemory, key: str) -> None:
    memory.check_allowed()
    memory.register(name="b", key=key, offset=0, byte_size=64)
    memory.register(name="\u00e4", key=key, offset=8, byte_size=56)
    assert memory.regions("") == [("b", key, 0, 64), ("\u00e4", key, 8, 56)]
    assert memory.regions("\u00e4") == [("\u00e4", key, 8, 56)]
    memory.unregister("b")
    assert memory.regions("") == [("\u00e4", key, 8, 56)]
    memory.unregister("")
    assert memory.regions("") == []


def test_failures_are_errors_of_their_codes(memory: _core.SharedMemory, key: str) -> None:
    memory.register(name="r", key=key, offset=0, byte_size=64)
    with pytest.raises(AlreadyExistsError, match="'r' already in manager"):
        memory.register(name="r", key=key, offset=0, byte_size=64)
    with pytest.raises(NotFoundError, match="Unable to find system shared memory region: 'x'"):
        memory.regions("x")
    with pytest.raises(InternalError, match="Unable to open shared memory region: '/nobody'"):
        memory.register(name="x", key="/nobody", offset=0, byte_size=1)


def test_numbers_that_no_size_can_be_are_type_errors(memory: _core.SharedMemory, key: str) -> None:
    for offset in (-1, 2**64):
        with pytest.raises(TypeError):
            memory.register(name="r", key=key, offset=offset, byte_size=1)


def test_not_allowed_is_unimplemented(key: str) -> None:
    memory = make_engine().shared_memory
    for call in (
        memory.check_allowed,
        lambda: memory.register(name="r", key=key, offset=0, byte_size=1),
        lambda: memory.unregister(""),
        lambda: memory.regions(""),
    ):
        with pytest.raises(UnimplementedError, match="--allow-client-shm=true"):
            call()


def test_regions_are_closed_with_their_engine(key: str) -> None:
    def is_open() -> bool:
        files = (os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd"))
        return f"/dev/shm{key}" in list(files)

    engine = make_engine(allow_client_shm=True)
    engine.shared_memory.register(name="r", key=key, offset=0, byte_size=64)
    assert is_open()
    del engine
    assert not is_open()


@pytest.fixture
def driver() -> None:
    """A CUDA driver of fake GPUs: who opens libcuda.so.1 is given what this process has by then."""
    ctypes.CDLL(str(FAKE_CUDA / "libcuda.so.1"))


@pytest.fixture
def gpus(driver: None) -> _core.SharedMemory:
    """Of an engine whose GPUs are fake: the object of `key` is another process's memory there."""
    return make_engine(allow_client_shm=True).shared_memory


def handle(key: str) -> bytes:
    """As the fake GPU takes it."""
    return key.encode().ljust(64, b"\0")


def test_regions_on_gpus_are_listed_by_name_and_forgotten(
    gpus: _core.SharedMemory, key: str
) -> None:
    gpus.check_cuda_usable()
    gpus.register_cuda(name="g", handle=handle(key), device_id=1, byte_size=64)
    gpus.register(name="s", key=key, offset=0, byte_size=64)
    assert gpus.cuda_regions("") == gpus.cuda_regions("g") == [("g", 1, 64)]
    assert gpus.regions("") == [("s", key, 0, 64)]
    gpus.unregister("g")  # it is of the other kind
    gpus.unregister_cuda("s")
    assert gpus.cuda_regions("") and gpus.regions("")
    gpus.unregister_cuda("")
    assert gpus.cuda_regions("") == []


def test_failures_of_gpus_are_errors_of_their_codes(gpus: _core.SharedMemory, key: str) -> None:
    register = gpus.register_cuda
    with pytest.raises(InvalidArgumentError, match="cudaIpcMemHandle_t of 64 bytes, got 1"):
        register(name="r", handle=b"x", device_id=0, byte_size=1)
    with pytest.raises(InvalidArgumentError, match="expected a device below 2, got -1"):
        register(name="r", handle=handle(key), device_id=-1, byte_size=1)
    with pytest.raises(NotFoundError, match="Unable to find cuda shared memory region: 'x'"):
        gpus.cuda_regions("x")
    with pytest.raises(TypeError):
        register(name="r", handle=handle(key), device_id=0, byte_size=-1)


def test_without_a_gpu_registration_is_refused_with_the_reason(
    driver: None, memory: _core.SharedMemory, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "none")
    with pytest.raises(UnavailableError, match="the CUDA driver finds no device"):
        memory.check_cuda_usable()
    refused = r"region: 'r', GPUs not supported: the CUDA driver finds no device"
    with pytest.raises(InvalidArgumentError, match=refused):
        memory.register_cuda(name="r", handle=handle(key), device_id=0, byte_size=1)
