"""Who may use whom in csrc/, read from the #include lines of the sources.

The tables below are the rule. They are also tried on small trees that break it, so that a checker
which has gone blind fails too.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A folder of csrc/ may include itself and the folders of lower levels; never its neighbours.
CXX_LEVELS = [
    ["base"],
    ["tensor"],
    ["memory"],  # hands out tensor/buffer.h's buffers
    ["gpu"],
    ["worker"],  # the protocol of backends whose models run in another process
    ["batcher", "backends", "protocol"],
    ["engine"],
    ["transport"],
    ["bindings"],
]
CXX_LEVEL = {folder: level for level, names in enumerate(CXX_LEVELS) for folder in names}
# testing/ holds fakes of seams below the bindings; it is linked by tests and bench only.
CXX_LEVEL["testing"] = CXX_LEVEL["bindings"]

# Outside headers, and the only folders that may know them.
CXX_OUTSIDE = {
    re.compile(r"pybind11/|Python\.h$"): ("bindings",),
    re.compile(r"cuda|cublas|NvInfer"): ("gpu", "backends/tensorrt"),
    re.compile(r"openvino/"): ("backends/openvino",),
    re.compile(r"protozero/"): ("protocol", "backends/onnxruntime"),  # ONNX files are protobuf
    re.compile(r"nghttp2/|openssl/|zlib\.h$"): ("transport",),
    re.compile(r"load/"): ("bindings",),  # clients/cpp
    re.compile(r"gtest/|gmock/|benchmark/"): ("testing",),
}
# What `base` may include: C++ headers have no suffix; of the system only these.
SYSTEM_HEADER = re.compile(
    r"[a-z_]+|sys/[a-z_]+\.h|(pthread|unistd|sched|errno|fcntl|time|signal|dlfcn)\.h"
)

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"(?P<ours>[^"]+)"|<(?P<outside>[^>]+)>)', re.MULTILINE)


def cxx_files(csrc: Path) -> Iterator[Path]:
    return (path for path in sorted(csrc.rglob("*")) if path.suffix in {".h", ".cc", ".cu"})


def cxx_faults(csrc: Path) -> list[str]:
    faults = []
    for path in cxx_files(csrc):
        name = path.relative_to(csrc).as_posix()
        for match in INCLUDE.finditer(path.read_text()):
            if match["ours"]:
                fault = own_include_fault(csrc, path, match["ours"])
            else:
                fault = outside_include_fault(name, match["outside"])
            if fault:
                faults.append(f"{name}: {fault}")
    return faults


def own_include_fault(csrc: Path, path: Path, included: str) -> str | None:
    target = csrc / included
    if not target.is_file():
        return f'"{included}" is not a file of csrc/ (write paths from there)'
    folder, other = path.relative_to(csrc).parts[0], Path(included).parts[0]
    if path.relative_to(csrc).parts[:2] == ("gpu", "kernels"):
        return None if included.startswith("gpu/kernels/") else f'device code includes "{included}"'
    if folder == other:
        return None
    if other == "testing":
        return f'product code includes "{included}"'
    if CXX_LEVEL[other] >= CXX_LEVEL[folder]:
        return f'{folder}/ includes "{included}", which is not below it'
    return None


def outside_include_fault(name: str, header: str) -> str | None:
    if name.startswith("base/") and not SYSTEM_HEADER.fullmatch(header):
        return f"base/ includes <{header}>: it knows only the standard library"
    for pattern, homes in CXX_OUTSIDE.items():
        if pattern.match(header) and not name.startswith(tuple(f"{home}/" for home in homes)):
            return f"<{header}> belongs to {' and '.join(homes)} only"
    return None


def test_cxx_includes_point_downwards() -> None:
    assert list(cxx_files(ROOT / "csrc"))
    assert cxx_faults(ROOT / "csrc") == []


def test_every_csrc_folder_has_a_level() -> None:
    folders = {path.relative_to(ROOT / "csrc").parts[0] for path in cxx_files(ROOT / "csrc")}
    assert folders <= set(CXX_LEVEL)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("base/a.h", '#include "tensor/b.h"'),
        ("base/a.h", "#include <protozero/pbf_reader.hpp>"),
        ("batcher/a.h", '#include "backends/b.h"'),
        ("engine/a.cc", "#include <pybind11/pybind11.h>"),
        ("engine/a.cc", '#include "testing/b.h"'),
        ("batcher/a.cc", "#include <cuda_runtime.h>"),
        ("engine/a.cc", "#include <load/client.h>"),
        ("backends/a.h", "#include <openvino/runtime/core.hpp>"),
        ("gpu/kernels/a.cu", '#include "base/b.h"'),
        ("gpu/a.h", '#include "batcher/b.h"'),
        ("worker/a.cc", "#include <cuda_runtime_api.h>"),
        ("engine/a.cc", '#include "nowhere.h"'),
    ],
)
def test_cxx_checker_reports_a_forbidden_include(tmp_path: Path, file: str, line: str) -> None:
    for folder in CXX_LEVEL:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "b.h").touch()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(line)
    assert len(cxx_faults(tmp_path)) == 1
