"""The one step setuptools cannot do itself: generate the protobuf products.

In the repository they come from ../../proto; an sdist carries them, so nothing is generated there.
Metadata is in pyproject.toml.
"""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent


def generate_protos() -> None:
    """Runs the repository's generator, where this is the repository."""
    generator = ROOT.parents[1] / "proto" / "generate.py"
    if generator.exists():
        subprocess.run([sys.executable, str(generator)], check=True, cwd=generator.parents[1])


class GenerateThenBuild(build_py):
    """Collects the package after its protos were generated."""

    def run(self) -> None:
        """Generates, then collects."""
        generate_protos()
        super().run()


class GenerateThenSdist(sdist):
    """Packs the source distribution after its protos were generated."""

    def run(self) -> None:
        """Generates, then packs."""
        generate_protos()
        super().run()


setup(cmdclass={"build_py": GenerateThenBuild, "sdist": GenerateThenSdist})
