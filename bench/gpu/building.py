"""The step `build`: core, tests, gpu_bench, LoadGen's side; of what is here or was brought."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from gpu.hardware import Gpu
from gpu.parsing import last_line, notes_in
from gpu.running import BUILD, LOADGEN, ROOT, SITE, STAGE, Ran, StepError, succeed
from gpu.step import LIMIT_S, Context, Found

_NVCC = Path("/usr/local/cuda/bin/nvcc")
"""Where CUDA's toolkit is, also where it is not on the PATH."""


def configure_command(gpu: Gpu, has_tests: bool, stage: Path = STAGE) -> list[str]:
    """CMake for this machine's GPU and Python, into a folder of its own."""
    command = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    if shutil.which("ninja"):
        command += ["-G", "Ninja"]
    if not shutil.which("nvcc") and _NVCC.exists():
        command += [f"-DCMAKE_CUDA_COMPILER={_NVCC}"]
    if (stage / "usr").is_dir():
        command += [f"-DCMAKE_PREFIX_PATH={stage / 'usr'}"]
    if sources := loadgen_sources():
        command += [f"-DPENSTOCK_LOADGEN_DIR={sources}"]
    return [
        *command,
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DPENSTOCK_OUTPUT_DIR={ROOT / 'server' / 'penstock'}",
        "-DPENSTOCK_CUDA=ON",
        f"-DCMAKE_CUDA_ARCHITECTURES={gpu.architecture}",
        "-DPENSTOCK_BUILD_GPU_BENCH=ON",
        "-DPENSTOCK_WERROR=OFF",  # it is another machine's compiler
        f"-DPENSTOCK_BUILD_TESTS={'ON' if has_tests else 'OFF'}",
    ]


def loadgen_sources(places: Iterable[Path] = LOADGEN) -> Path | None:
    """Where LoadGen's sources are."""
    return next((each for each in places if (each / "VERSION.txt").exists()), None)


def build(context: Context) -> Found:
    """The core, its tests and gpu_bench, with the toolkit of this machine."""
    bring_packages(context)
    bring_protocols(context)
    needs = context.run([sys.executable, "-m", "bench.gpu.needs"], LIMIT_S)
    yield from notes_in(needs.output)
    if needs.status != 0:
        yield f"which packages are missing is not known: {last_line(needs.output)}"
    configured = context.run(configure_command(context.gpu, has_tests=True), LIMIT_S)
    targets = ["all", "gpu_bench", "penstock_gpu_fixture", "gpu_test", "cuda_test"]
    if configured.status != 0:  # GoogleTest may not be there
        targets = targets[:3]
        reason = configure_failure(configured)
        configured = context.run(configure_command(context.gpu, has_tests=False), LIMIT_S)
        if configured.status != 0:
            raise StepError(f"cmake: {configure_failure(configured)}")
        yield f"without tests: {reason}"
    succeed(context.run(build_command(*targets), LIMIT_S), "the build")
    told = re.compile(r"-- (.*(?:CUDA|left out|without the Python module).*)")
    yield from (found[1] for found in map(told.match, configured.output.splitlines()) if found)
    yield from build_native_sut(context)


def build_command(*targets: str) -> list[str]:
    """CMake, with all processors."""
    jobs = str(len(os.sched_getaffinity(0)))
    return ["cmake", "--build", str(BUILD), "-j", jobs, "--target", *targets]


def build_native_sut(context: Context) -> Found:
    """The C++ side of LoadGen; where that cannot be built, bench.mlperf's Python serves."""
    instead = "the system under test is Python, whose own limit served rates then meet"
    if loadgen_sources() is None:
        yield f"LoadGen's sources are not here: {instead}"
        return
    ran = context.run(build_command("_penstock_loadgen"), LIMIT_S)
    if ran.status != 0:
        yield f"LoadGen's native side was not built ({last_line(ran.output)}): {instead}"


def configure_failure(ran: Ran) -> str:
    """What CMake's first error says, which is not its last line."""
    found = re.search(r"^CMake Error[^\n]*\n\s*(\S[^\n]*)", ran.output, re.MULTILINE)
    if found:
        return found[1]
    return f"it ended with status {ran.status}: {ran.output.strip().rpartition(chr(10))[2]}"


def bring_packages(context: Context, stage: Path = STAGE, site: Path = SITE) -> None:
    """Installs the wheels that were brought, for the programs of the steps alone."""
    wheels = sorted(map(str, (stage / "wheels").glob("*.whl")))
    names = "".join(f"{Path(wheel).name}\n" for wheel in wheels)
    installed = site / "wheels.txt"
    if not wheels or (installed.exists() and installed.read_text() == names):
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    new = site.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    ran = context.run([*pip, "--no-compile", "--target", str(new), *wheels], LIMIT_S)
    succeed(ran, "pip")
    (new / installed.name).write_text(names)
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)


def bring_protocols(context: Context, stage: Path = STAGE) -> None:
    """Makes the protocols' products, or takes those that were brought.

    Raises:
        StepError: There is neither a compiler for them nor are they there.
    """
    if importlib.util.find_spec("grpc_tools"):
        succeed(context.run([sys.executable, "proto/generate.py"], LIMIT_S), "proto/generate.py")
    elif (stage / "products").is_dir():
        shutil.copytree(stage / "products", ROOT, dirs_exist_ok=True)
    else:
        raise StepError(
            "grpc_tools is not installed: bring what `python -m bench.gpu.staging` gathers on a "
            f"machine with packages, as {stage.relative_to(ROOT)}"
        )
