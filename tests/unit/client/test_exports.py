"""What `import penstock_client` gives, and what it leaves alone."""

import inspect
import json
import subprocess
import sys

import penstock_client
from penstock_client import AsyncClient, Client

REPORT_MODULES = "import json, sys, penstock_client; print(json.dumps(sorted(sys.modules)))"


def test_all_lists_every_public_name_in_order() -> None:
    public = {
        name
        for name, value in vars(penstock_client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(penstock_client.__all__)
    assert penstock_client.__all__ == sorted(penstock_client.__all__)


def test_import_loads_neither_the_server_nor_optional_or_heavy_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPORT_MODULES], check=True, capture_output=True, text=True
    )
    loaded = {module.partition(".")[0] for module in json.loads(done.stdout)}
    assert "grpc" in loaded
    assert not loaded & {"penstock", "ml_dtypes", "onnxruntime", "tritonclient", "typer", "uvloop"}
    assert "google.protobuf.json_format" not in json.loads(done.stdout)


def test_both_clients_offer_the_same_methods_with_the_same_arguments() -> None:
    def offered(client: type) -> dict[str, list[str]]:
        return {
            name: [
                str(p.replace(annotation=p.empty)) for p in inspect.signature(f).parameters.values()
            ]
            for name, f in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_")
        }

    assert offered(Client) == offered(AsyncClient)


def test_both_constructors_take_the_same_arguments() -> None:
    assert list(inspect.signature(Client).parameters) == list(
        inspect.signature(AsyncClient).parameters
    )


def test_every_public_class_and_method_is_documented() -> None:
    for name in penstock_client.__all__:
        assert inspect.getdoc(getattr(penstock_client, name)), name
    for client in (Client, AsyncClient):
        for name, method in inspect.getmembers(client, inspect.isfunction):
            assert name.startswith("_") or inspect.getdoc(method), f"{client.__name__}.{name}"
