"""A build of what needs CUDA, by the compiler of NVIDIA's wheels, on a machine without a GPU."""

import os
import struct
import subprocess
import sys
from pathlib import Path

from tests.support.engine_wheels import engine_wheel

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "cuda"

# nvcc, with what it runs and includes, of one release of CUDA.
_TOOLKIT = (
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
)
_FATBIN_MAGIC = 0xBA55ED50
_KINDS = {1: "ptx", 2: "elf"}


def build_with_cuda(*targets: str, tensorrt_roots: str = "") -> Path:
    """Builds targets for all architectures; the build's directory, which later calls go on with."""
    toolkit = _toolkit()
    environment = {
        **os.environ,
        "CUDACXX": str(toolkit / "bin" / "nvcc"),
        "CUDAFLAGS": f"-L{toolkit / 'lib'}",
    }
    configure = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DPENSTOCK_CUDA=ON"]
    configure += ["-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DPENSTOCK_BUILD_TESTS=ON"]
    configure += ["-DPENSTOCK_BUILD_GPU_BENCH=ON", f"-DTensorRT_ROOT={tensorrt_roots}"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    _run(configure, environment)
    _run(["cmake", "--build", str(BUILD), "--target", *targets], environment)
    return BUILD


def device_code(binary: Path) -> set[tuple[str, int]]:
    """What lies in a program's or archive's pieces of device code: ("elf", 90) for each.

    CUDA's fat binaries, of which there is no description: a header (magic, version, its size, what
    follows) and then for each piece a header (kind, version, its size, the piece's) with the
    architecture at its 28th byte.
    """
    content = binary.read_bytes()
    found = set()
    magic = struct.pack("<I", _FATBIN_MAGIC)
    at = content.find(magic)
    while at >= 0:
        _, version, header, size = struct.unpack_from("<IHHQ", content, at)
        end = at + header + size
        piece = at + header
        while version == 1 and piece + 32 <= end <= len(content):
            kind, _, header, size = struct.unpack_from("<HHIQ", content, piece)
            (architecture,) = struct.unpack_from("<I", content, piece + 28)
            found.add((_KINDS.get(kind, f"kind {kind}"), architecture))
            piece += header + size
        at = content.find(magic, at + len(magic))
    return found


def _toolkit() -> Path:
    """The wheels' directory, laid out as CMake wants a toolkit: with a library to be linked."""
    toolkit = engine_wheel(*_TOOLKIT) / "nvidia" / "cu13"
    library = toolkit / "lib" / "libcudart.so"
    if not library.exists():
        library.symlink_to("libcudart.so.13")
    return toolkit


def _run(command: list[str], environment: dict[str, str]) -> None:
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, "\n".join((ended.stdout + ended.stderr).splitlines()[-60:])
