"""The trailing metadata of ModelMetadata that says where a model computes."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock.codec import ModelMetadata
from penstock.frontend import service


class OneModel:
    """Serves a model that runs where it is told."""

    def __init__(self, runs_on: str) -> None:
        self._runs_on = runs_on

    def metadata(self, name: str, version: str = "") -> ModelMetadata:
        return ModelMetadata(name, ("1",), "", (), (), self._runs_on)

    def ready(self, name: str, version: str = "") -> bool:
        return True


class Gate:
    """Lets everybody in."""

    async def admit(self, group: str, size: int, context: Any) -> None:
        pass


class Context:
    """Of a call; keeps what it is given."""

    def __init__(self) -> None:
        self.trailing: list[tuple[str, str]] = []

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def disable_next_message_compression(self) -> None:
        pass

    def set_trailing_metadata(self, pairs: tuple[tuple[str, str], ...]) -> None:
        self.trailing.extend(pairs)


async def told(runs_on: str) -> list[tuple[str, str]]:
    control = service.ControlHandlers(
        cast("Any", OneModel(runs_on)),
        cast("Any", None),
        cast("Any", None),
        cast("Any", SimpleNamespace(by_rpc=dict.fromkeys)),
        server_name="s",
        server_version="1",
    )
    guarded = service._guarded(
        "ModelMetadata",
        control.model_metadata,
        cast("Any", Gate()),
        after=service._tell_place(control),
    )
    context = Context()
    assert await guarded.unary_unary(b"\n\x01m", context)
    return context.trailing


@pytest.mark.parametrize(
    ("runs_on", "shown"),
    [
        ("GPU 0 (NVIDIA H200), CUDA", "GPU 0 (NVIDIA H200), CUDA"),
        ("GPU 0 (a\nb\x00c\x7f\t~)", "GPU 0 (a?b?c??~)"),
        ("Beschleuniger \u00fc\U0001f600", "Beschleuniger ??"),
        (" a device ", "a device"),
    ],
)
async def test_place_is_printable_ascii(runs_on: str, shown: str) -> None:
    assert await told(runs_on) == [("penstock-runs-on", shown)]


@pytest.mark.parametrize("runs_on", ["", " "])
async def test_place_that_nobody_knows_is_not_told(runs_on: str) -> None:
    assert await told(runs_on) == []
