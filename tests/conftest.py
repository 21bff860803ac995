"""Nothing else is shared implicitly: fakes and fixtures of tests/support are imported by name."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core import HAS_TRANSPORT

# A shell starts what it runs in the background with SIGINT ignored, and children inherit that: the
# servers and commands that tests interrupt would never notice.
signal.signal(signal.SIGINT, signal.default_int_handler)

TRANSPORTS = ("native", "grpcio") if HAS_TRANSPORT else ("grpcio",)
ON_THE_WIRE = {"integration", "clients", "chaos", "regressions"}
"""Folders of tests that start servers."""
BY_OURS_ALONE = {"integration", "chaos"}
"""Those that try the transport that is there without ours only when they are told to."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        choices=(*TRANSPORTS, "all"),
        help="what carries gRPC in tests on the wire; unless given all of them in the folders"
        " clients and regressions, in the others the first that there is",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests on the wire run over each transport, but for those marked `any_transport`."""
    folder = Path(metafunc.definition.path).relative_to(Path(__file__).parent).parts[0]
    marker = metafunc.definition.get_closest_marker("any_transport")
    if folder not in ON_THE_WIRE or marker is not None:
        return
    only = metafunc.definition.get_closest_marker("transport")
    chosen = metafunc.config.getoption("--transport")
    names = [
        name
        for name in TRANSPORTS
        if chosen in (None, "all", name) and (only is None or name in only.args)
    ]
    if chosen is None and folder in BY_OURS_ALONE:
        names = names[:1]
    metafunc.parametrize("transport", names, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """What carries gRPC in this test's servers; fixtures of a module that start one ask for it.

    Servers find it where an operator may say it, too: in the environment.
    """
    name: str = getattr(request, "param", "auto")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PENSTOCK_TRANSPORT", name)
        yield name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes: a file in one of them, what is lengthy by itself.

    A file's tests share the servers that its fixtures start, on each transport others. What takes
    long starts first, or the others would have ended long before it.
    """
    for item in items:
        is_lengthy = item.get_closest_marker("lengthy") is not None
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        shared = f"{item.path.name} {parameters.get('transport', '')}"
        item.add_marker(pytest.mark.xdist_group(item.nodeid if is_lengthy else shared))
    items.sort(key=lambda item: item.get_closest_marker("lengthy") is None)
