"""The two build steps setuptools cannot do itself; all metadata is in pyproject.toml.

1. `build_py`: generate the protobuf products from proto/ (an sdist carries them along).
2. `build_ext`: let CMake build `_core`, `libpenstock.so` and the backend plug-ins. An editable
   install puts them into server/penstock/ and shares build/release with `make build`, so neither
   compiles what the other has compiled.
"""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class GenerateProtos(build_py):
    """Runs proto/generate.py before the package's files are collected."""

    def run(self) -> None:
        """Generates, then collects."""
        generator = ROOT / "proto" / "generate.py"
        if generator.exists():
            subprocess.run([sys.executable, str(generator)], check=True, cwd=ROOT)
        super().run()


class CMakeBuild(build_ext):
    """Runs CMake instead of a compiler; the one Extension only says that the wheel is not pure."""

    def run(self) -> None:
        """Configures and builds into the package, of the source tree or of the wheel."""
        in_place = self.inplace or self.editable_mode
        output = ROOT / "server" / "penstock"
        build = ROOT / "build" / "release"
        if not in_place:
            output = Path(self.build_lib).resolve() / "penstock"
            build = Path(self.build_temp).resolve()
        self._cmake(
            "--preset",
            "release",
            "-B",
            str(build),
            f"-DPENSTOCK_OUTPUT_DIR={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
        )
        self._cmake("--build", str(build), "-j", str(len(os.sched_getaffinity(0))))

    def _cmake(self, *arguments: str) -> None:
        # Under build isolation this interpreter's tools (ninja, a newer cmake) come first.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        subprocess.run(
            ["cmake", *arguments], check=True, cwd=ROOT, env={**os.environ, "PATH": path}
        )

    def get_outputs(self) -> list[str]:
        """CMake's products are package data; there is nothing for setuptools to copy."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """As `get_outputs`: the products are already where they belong."""
        return {}


setup(
    cmdclass={"build_py": GenerateProtos, "build_ext": CMakeBuild},
    ext_modules=[Extension("penstock._core", sources=[])],
)
