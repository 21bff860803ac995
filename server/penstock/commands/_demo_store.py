"""The demo's way through the model store: pushed with a golden request, deployed, audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.commands._connection import Connection
from penstock.commands._demo_model import INPUT, LABEL, MODEL
from penstock.commands._failure import CommandError
from penstock.commands._store import store_at

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.commands._demo_model import Digits
    from penstock.commands.answers import Audited
    from penstock.store.records import VersionRecord

ENVIRONMENT = "demo"
_SHOWN = 8
"""Images of the golden request."""


def push_and_deploy(url: str, root: Path, work: Path, digits: Digits) -> VersionRecord:
    """Pushes the digits of a repository, and has the demo's environment serve them.

    Args:
        url: of the store, which is made.
        root: of the repository.
        work: a directory for what is only needed meanwhile.
        digits: that were trained.

    Raises:
        CommandError: the store cannot be used.
    """
    golden = work / "golden.json"
    golden.write_text(_golden(digits))
    with store_at(url, may_create=True) as store:
        from penstock.store.pushing import PushRequest, push_model
        from penstock.store.records import Reference
        from penstock.stored import inspect_model

        request = PushRequest(
            name=MODEL,
            path=root / MODEL,
            owner=store.actor,
            description="scikit-learn's handwritten digits",
            data=["digits=https://scikit-learn.org/stable/datasets/toy_dataset.html"],
            features=["pixels:1"],
            goldens=[golden],
        )
        record = push_model(store, request, inspect_model, Path.cwd())
        store.deploy(Reference(MODEL, record.version), ENVIRONMENT)
        return record


def audit(url: str, address: str) -> Audited:
    """What `penstock audit` finds of a server of the demo's environment.

    Args:
        url: of the store.
        address: host:port of the server.

    Raises:
        CommandError: the store or the server does not answer.
    """
    from penstock.commands.answers import audit_server

    with store_at(url) as store:
        return audit_server(Connection(address), store, ENVIRONMENT)


def print_audited(terminal: Console, address: str, found: Audited) -> None:
    """Prints it as `penstock audit` does.

    Raises:
        CommandError: the server held anything but what was deployed.
    """
    from penstock.commands.answers import print_audit

    terminal.print(f"penstock audit {address} --environment {ENVIRONMENT}")
    print_audit(found, ENVIRONMENT)
    if not found.is_right:
        raise CommandError("the server did not hold what was pushed and deployed")


def _golden(digits: Digits) -> str:
    images, labels = digits.images[:_SHOWN], digits.labels[:_SHOWN]
    given = {"name": INPUT, "datatype": "FP32", "shape": list(images.shape)}
    expected = {"name": LABEL, "datatype": "INT64", "shape": [len(labels)]}
    return json.dumps(
        {
            "inputs": [{**given, "data": images.tolist()}],
            "outputs": [{**expected, "data": labels.tolist()}],
        }
    )
