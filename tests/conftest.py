"""Nothing is shared implicitly: fakes and fixtures of tests/support are imported by name."""

import signal

import pytest

# A shell starts what it runs in the background with SIGINT ignored, and children inherit that: the
# servers and commands that tests interrupt would never notice.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes: a file in one of them, what is lengthy by itself.

    A file's tests share the servers that its fixtures start. What takes long starts first, or the
    others would have ended long before it.
    """
    for item in items:
        is_lengthy = item.get_closest_marker("lengthy") is not None
        group = item.nodeid if is_lengthy else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("lengthy") is None)
