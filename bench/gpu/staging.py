"""Gathers what a machine with a GPU and without packages needs to build and run bench.gpu.

Run on Debian 12 with what `make test` installs: build/gpu-stage, some 33 MiB, is then brought to
the other machine beside the tree, where the step `build` finds it. It holds headers and libraries
(GoogleTest, protozero, nghttp2, OpenSSL, zlib), the protocols' products, LoadGen's sources, and
wheels of what the server and bench.mlperf import, for x86-64, glibc 2.28 and the other machine's
Python. Large ones have to be there: NumPy, onnx with ml-dtypes, and onnxruntime-gpu.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.running import ROOT, STAGE  # noqa: E402

PACKAGES = (
    "libprotozero-dev libgtest-dev libgmock-dev libnghttp2-dev libnghttp2-14 libssl-dev libssl3 "
    "zlib1g-dev zlib1g"
).split()
"""Of Debian: what CMake looks for, and the libraries behind."""
WHEELS = (
    "annotated-doc annotated-types cffi click cryptography grpcio grpcio-health-checking "
    "grpcio-reflection h11 httptools mlcommons-loadgen orjson packaging protobuf pybind11 pydantic "
    "pydantic-core pyjwt python-rapidjson shellingham starlette tritonclient typer "
    "typing-extensions typing-inspection uvicorn uvloop"
).split()
"""What the server, its client and bench.mlperf import, but for what is large; all pinned by
requirements.lock."""
LOADGEN = "mlcommons-loadgen"
"""Of which the sources come, too: bench.mlperf's native side is built with them."""
_STATIC = re.compile(r"lib(gtest|gmock)(_main)?\.a")
_TRIPLET = "x86_64-linux-gnu"


def destination(path: str) -> str | None:
    """Where a package's file belongs in a prefix; None: it is not needed."""
    place = re.sub("^/usr/|^/", "", path)
    if place.startswith("include/"):
        # The compiler of the other machine looks into no triplet's folder of ours.
        return place.replace(f"include/{_TRIPLET}/", "include/")
    if not place.startswith(f"lib/{_TRIPLET}/"):
        return None
    name = place.rpartition("/")[2]
    is_library = ".so" in name and place.count("/") == 2
    return place if is_library or _STATIC.fullmatch(name) or "/cmake/" in place else None


def files_of(packages: Sequence[str]) -> list[str]:
    """What the packages have installed here."""
    listed = subprocess.run(["dpkg", "-L", *packages], check=True, capture_output=True, text=True)
    return [line for line in dict.fromkeys(listed.stdout.splitlines()) if Path(line).is_file()]


def gather_files(prefix: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Copies headers and libraries into a prefix; links stay links."""
    for path in files_of(packages):
        if place := destination(path):
            target = prefix / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if Path(path).is_symlink():  # beside what it names, wherever that was
                target.symlink_to(Path(path).readlink().name)
            else:
                shutil.copy2(path, target)


def gather_products(folder: Path) -> None:
    """Makes the protocols' products and copies them, where they lie in the tree."""
    subprocess.run([sys.executable, "proto/generate.py"], check=True, cwd=ROOT)
    for home in [*ROOT.glob("server/*/_proto"), *ROOT.glob("clients/*/*/_proto")]:
        shutil.copytree(home, folder / home.relative_to(ROOT), dirs_exist_ok=True)


def requirements(lock: str, names: Sequence[str] = WHEELS) -> str:
    """Those packages' part of requirements.lock, with their hashes.

    Raises:
        ValueError: It has none of that name.
    """
    parts = []
    for name in names:
        found = re.search(rf"^{re.escape(name)}==(?:.*\\\n)*.*\n", lock, re.MULTILINE | re.I)
        if found is None:
            raise ValueError(f"requirements.lock has no {name}")
        parts.append(found[0])
    return "".join(parts)


def gather_wheels(folder: Path, python: str) -> None:
    """Downloads them for the other machine's Python."""
    folder.mkdir(parents=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(requirements((ROOT / "requirements.lock").read_text()))
    platforms = [f"--platform=manylinux_{glibc}_x86_64" for glibc in ("2_28", "2_26", "2_17")]
    platforms += ["--platform=manylinux2014_x86_64"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        + ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        + [*platforms, f"--dest={folder}", "--require-hashes", "-r", str(wanted)],
        check=True,
    )


def gather_loadgen(folder: Path) -> None:
    """Downloads LoadGen's source distribution and unpacks it, as `make loadgen` does."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        wanted = home / "requirements.txt"
        wanted.write_text(requirements((ROOT / "requirements.lock").read_text(), [LOADGEN]))
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            + ["--no-deps", "--no-build-isolation", "--no-binary=:all:", f"--dest={home}"]
            + ["--require-hashes", "-r", str(wanted)],
            check=True,
        )
        (archive,) = home.glob("*.tar.gz")
        unpack(archive, folder)


def unpack(archive: Path, folder: Path) -> None:
    """What lies in the one folder of a source distribution."""
    folder.mkdir(parents=True)
    command = ["tar", "xzf", str(archive), "-C", str(folder), "--strip-components=1"]
    subprocess.run(command, check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Gathers all of it anew."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.staging", description=__doc__)
    parser.add_argument("--python", default="3.12", help="version, of the other machine")
    parser.add_argument("--output", type=Path, default=STAGE)
    args = parser.parse_args(arguments)
    new = args.output.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    gather_files(new / "usr")
    gather_products(new / "products")
    gather_wheels(new / "wheels", args.python)
    gather_loadgen(new / "loadgen")
    shutil.rmtree(args.output, ignore_errors=True)
    new.rename(args.output)
    size = sum(each.lstat().st_size for each in args.output.rglob("*") if not each.is_dir())
    print(f"{args.output}: {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
