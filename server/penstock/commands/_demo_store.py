"""The demo's way through the model store: pushed with a golden request, deployed, audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.commands._demo_model import INPUT, LABEL, MODEL
from penstock.commands._failure import CommandError
from penstock.commands._store import store_at

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.commands._demo_model import Digits
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


def print_audit(terminal: Console, url: str) -> None:
    """Says which server served the latest version, from which bytes.

    Raises:
        CommandError: none did, or from others than were pushed.
    """
    with store_at(url) as store:
        from penstock.store.records import Reference

        record = store.show(Reference(MODEL))
    (deployment,) = record.deployments
    if deployment.status != "SERVING" or not deployment.reports:
        raise CommandError(f"the store has {record.reference} {deployment.status.lower()}")
    server, _, _, digest = deployment.reports[0]
    if digest != record.digest:
        raise CommandError(f"{server} loaded {digest}, not {record.digest}")
    name = record.reference
    terminal.print(f"audited     {server} served {name} from the bytes that were pushed")


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
