"""Who may use whom in Python, read from the imports of the sources by AST.

The tables below are the rule. They are also tried on small trees that break it, so that a checker
which has gone blind fails too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A module of penstock may import from lower levels and from its own package. Neighbours on the
# first level and beside `app` may know each other; the packages of the second level may not.
PY_LEVELS = [
    [
        *("errors", "setting", "access_settings", "http_settings", "store_settings", "config"),
        *("operation_settings", "built_settings", "folders"),
        *("certificates", "codec", "core", "client_memory", "_messages", "threads"),
    ],
    ["worker"],  # runs in processes of its own: see worker_faults
    ["repository", "store", "jobs", "scaling", "observe", "access", "engines", "operations"],
    ["frontend"],
    [
        "lifecycle",
        "notify",
        "handover",
        "app",
        "serving",
        "batch",
        "gateway",
        "handlers",
        "stored",
        "deployed",
        "wiring",
        "engine_options",
        "scaler",
    ],
    ["commands"],
    ["__main__"],
]
PY_LEVEL = {module: level for level, names in enumerate(PY_LEVELS) for module in names}
LEVELS_OF_NEIGHBOURS = {0, 4}

# Modules with few homes: name -> the only modules of penstock that may import it ("x." = package).
PY_HOMES = {
    "penstock._core": ("core",),
    "grpc": ("frontend.",),
    "grpc_health": ("frontend.",),
    "grpc_reflection": ("frontend.",),
    "google.protobuf": ("codec", "_messages"),
    "penstock._proto": ("codec", "_messages"),
    "penstock_client": ("commands.", "scaling.", "jobs."),
    "penstock_gateway": ("gateway.", "http_settings"),
}
# Not everybody's need: imported where they are used. (gRPC's own import costs the frontend enough.)
PY_LAZY = (
    *("penstock_client", "numpy", "sklearn", "skl2onnx", "onnx", "PIL", "jwt", "cryptography"),
    *("pyarrow", "fsspec", "ray", "penstock.jobs"),
    *("starlette", "orjson", "penstock_gateway"),
    *("sqlalchemy", "alembic", "psycopg", "yaml", "obstore", "penstock.store"),
)
# Jobs are made of columns and arrays through and through, the store of tables: who imports
# `penstock.jobs` or `penstock.store` pays, lazily.
PY_EAGER_HOMES = {"numpy": "jobs.", "pyarrow": "jobs.", "penstock.jobs": "jobs."}
PY_EAGER_HOMES["penstock_gateway"] = "gateway."
PY_EAGER_HOMES["onnx"] = "operations."  # of what only its child imports
# What a server has of the gateway before somebody asks it: no starlette, no orjson, no numpy.
LIGHT_OF_THE_GATEWAY = {"penstock_gateway.options", "penstock_gateway.protocol"}
LIGHT_OF_THE_GATEWAY |= {"penstock_gateway.upstream"}
PY_EAGER_HOMES |= dict.fromkeys(("sqlalchemy", "alembic", "psycopg", "yaml", "obstore"), "store.")
PY_EAGER_HOMES |= {"penstock.store": "store."}
# policy.py is a pure function of its arguments: no event loop, no I/O, no clock.
IMPURE = {
    "asyncio",
    "io",
    "os",
    "pathlib",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
}
IMPURE |= {"concurrent", "datetime", "logging", "random", "selectors", "time", "uvloop"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names imported anywhere in the module; for `from a import b` it is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def eager_imports(tree: ast.Module) -> Iterator[str]:
    """Names imported when the module is: those outside of functions and of `if TYPE_CHECKING`."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def module_name(package: Path, path: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts) + ("." if parts[-1] == "__init__" else "")


def server_faults(package: Path) -> list[str]:
    faults = []
    for path in sorted(package.rglob("*.py")):
        name = module_name(package, path)
        if "_proto" in path.parts or name == "__init__.":
            continue
        tree = ast.parse(path.read_text())
        for imported in sorted(set(imports(tree))):
            fault = python_import_fault(name, imported)
            if fault:
                faults.append(f"{name.rstrip('.')} imports {imported}: {fault}")
        faults += [
            f"{name.rstrip('.')} imports {imported}: in a function only, or each start pays"
            for imported in eager_imports(tree)
            if any(is_within(imported, lazy) and not may_be_eager(name, lazy) for lazy in PY_LAZY)
            and not name.startswith("worker.")
        ]
    return faults


def may_be_eager(name: str, lazy: str) -> bool:
    return lazy in PY_EAGER_HOMES and name.startswith(PY_EAGER_HOMES[lazy])


def python_import_fault(name: str, imported: str) -> str | None:
    for guarded, homes in PY_HOMES.items():
        at_home = any(
            f"{name}.".startswith(home if home.endswith(".") else f"{home}.") for home in homes
        )
        if is_within(imported, guarded) and not at_home:
            return f"only {', '.join(homes)} may"
    if name.split(".")[-1] == "policy" and imported.split(".")[0] in IMPURE:
        return "a policy is a pure function"
    if is_within(imported, "tests"):
        return "product code imports no tests"
    if not is_within(imported, "penstock"):
        return None
    own, other = name.split(".")[0], [*imported.split("."), ""][1]
    if other not in PY_LEVEL or own == other:
        return None
    distance = PY_LEVEL[own] - PY_LEVEL[other]
    if distance < 0 or (distance == 0 and PY_LEVEL[own] not in LEVELS_OF_NEIGHBOURS):
        return "it is not below"
    return None


def worker_faults(package: Path) -> list[str]:
    """A worker's interpreter may have nothing but numpy and the standard library."""
    allowed = {"numpy", *sys.stdlib_module_names}
    return [
        f"{path.name} imports {imported}"
        for path in sorted(package.rglob("*.py"))
        for imported in sorted(set(imports(ast.parse(path.read_text()))))
        if imported.split(".")[0] not in allowed and not is_within(imported, "penstock.worker")
    ]


def client_faults(package: Path) -> list[str]:
    """The client knows gRPC, protobuf, numpy and the standard library; never the server."""
    allowed = {"penstock_client", "grpc", "google", "numpy", "ml_dtypes", *sys.stdlib_module_names}
    return [
        f"{path.name} imports {imported}"
        for path in sorted(package.rglob("*.py"))
        for imported in sorted(set(imports(ast.parse(path.read_text()))))
        if imported.split(".")[0] not in allowed
    ]


def gateway_faults(package: Path) -> list[str]:
    """The gateway knows HTTP's libraries and gRPC's; never the server, nor the client."""
    allowed = {"penstock_gateway", "grpc", "google", "numpy", "orjson", "starlette", "uvicorn"}
    allowed |= {"httptools", *sys.stdlib_module_names}
    return [
        f"{path.name} imports {imported}"
        for path in sorted(package.rglob("*.py"))
        for imported in sorted(set(imports(ast.parse(path.read_text()))))
        if imported.split(".")[0] not in allowed
    ]


def test_server_imports_point_downwards() -> None:
    assert server_faults(ROOT / "server" / "penstock") == []


def test_every_server_module_has_a_level() -> None:
    package = ROOT / "server" / "penstock"
    names = {module_name(package, path).split(".")[0] for path in package.rglob("*.py")}
    assert names - {"__init__", "_proto"} <= set(PY_LEVEL)


def test_worker_needs_numpy_and_nothing_else() -> None:
    package = ROOT / "server" / "penstock" / "worker"
    assert list(package.rglob("*.py"))
    assert worker_faults(package) == []


def test_nothing_of_the_server_imports_the_worker() -> None:
    package = ROOT / "server" / "penstock"
    modules = (path for path in package.rglob("*.py") if "worker" not in path.parts)
    imported = {name for path in modules for name in imports(ast.parse(path.read_text()))}
    assert {name for name in imported if is_within(name, "penstock.worker")} == set()


def test_worker_checker_reports_the_server(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import penstock.errors\nimport penstock.worker.wire")
    assert worker_faults(tmp_path) == ["a.py imports penstock.errors"]


def test_client_never_imports_the_server() -> None:
    package = ROOT / "clients" / "python" / "penstock_client"
    assert list(package.rglob("*.py"))
    assert client_faults(package) == []


def test_gateway_never_imports_the_server() -> None:
    package = ROOT / "clients" / "gateway" / "penstock_gateway"
    assert list(package.rglob("*.py"))
    assert gateway_faults(package) == []


def test_gateway_checker_reports_the_server(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import penstock.core\nimport penstock_client")
    assert len(gateway_faults(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "heavy"), [("penstock.store.store", "alembic"), ("penstock.stored", "penstock.app")]
)
def test_commands_of_the_store_start_without_what_few_use(name: str, heavy: str) -> None:
    code = f"import sys, {name}; assert '{heavy}' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(LIGHT_OF_THE_GATEWAY))
def test_server_starts_without_the_gateways_libraries(name: str) -> None:
    heavy = "{'starlette', 'orjson', 'numpy', 'grpc'}"
    code = f"import sys, {name}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("frontend/http.py", "def f(): import penstock_gateway.app"),
        ("errors.py", "from penstock.frontend import x"),
        ("repository/manager.py", "def f(): import penstock.store.db"),
        ("repository/manager.py", "from penstock import _core"),
        ("observe/metrics.py", "import grpc"),
        ("frontend/infer.py", "from penstock._proto import inference"),
        ("frontend/infer.py", "from google.protobuf import message"),
        ("app.py", "def f(): import penstock_client"),
        ("scaling/policy.py", "from time import monotonic"),
        ("jobs/runner.py", "from tests.support import fakes"),
        ("jobs/runner.py", "import grpc"),
        ("jobs/local.py", "from penstock import _core"),
        ("jobs/remote.py", "import penstock_client"),
        ("commands/batch.py", "from penstock.jobs.job import plan_job"),
        ("commands/infer.py", "import pyarrow"),
        ("store/golden.py", "import numpy"),
        ("app.py", "from penstock.store.store import Store"),
        ("frontend/x.py", "from penstock.app import App"),
        ("commands/infer.py", "import penstock_client"),
    ],
)
def test_server_checker_reports_a_forbidden_import(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(line)
    assert len(server_faults(tmp_path)) == 1


def test_server_checker_accepts_what_is_below(tmp_path: Path) -> None:
    (tmp_path / "frontend").mkdir()
    (tmp_path / "frontend" / "a.py").write_text(
        "import grpc\nfrom penstock.repository.x import y\n"
    )
    (tmp_path / "core.py").write_text(
        "from penstock import _core\nfrom penstock.errors import CoreError\n"
    )
    assert server_faults(tmp_path) == []


def test_client_checker_reports_the_server(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import penstock.config")
    assert client_faults(tmp_path) == ["a.py imports penstock.config"]
