"""Model repositories of the fixture backend: models that do as told.

csrc/testing/fixture_backend.h has the words.
"""

from pathlib import Path

FIXTURE_BACKENDS = Path(__file__).parents[2] / "build" / "release" / "testing" / "backends"
"""Where `make fixture` leaves libpenstock_fixture.so; give it to --backend-directory."""

FAKE_DEVICES = FIXTURE_BACKENDS.parent / "device"
"""Likewise, with a backend `device_fixture` whose models get into trouble as they are told.

csrc/testing/device_fixture_plugin.cc has the words.
"""

FAKE_CUDA = FIXTURE_BACKENDS.parent / "cuda"
"""Likewise, a CUDA driver (libcuda.so.1) of two fake GPUs, whose memory is POSIX shared memory."""

WITH_FAKE_GPUS = {"LD_LIBRARY_PATH": str(FAKE_CUDA)}
"""The environment of a server that finds that driver."""


def write_model(
    repository: Path, name: str, *, config: str = "", version: int = 1, **keys: str | Path
) -> Path:
    """Writes a model of the fixture backend.

    Args:
        repository: the directory of models.
        name: of the model.
        config: lines of config.pbtxt beyond the backend, such as max_batch_size.
        version: of the model.
        keys: what the model does, `kind` first of all.

    Returns:
        The model's directory.
    """
    directory = repository / name
    (directory / str(version)).mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {value}\n" for key, value in keys.items()]
    (directory / str(version) / "model.txt").write_text("".join(lines))
    (directory / "config.pbtxt").write_text(
        f'backend: "fixture"\ndefault_model_filename: "model.txt"\n{config}\n'
    )
    return directory


def write_simple(repository: Path, name: str = "simple", *, config: str = "") -> Path:
    """OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1, INT32 [16], in batches of 8."""
    return write_model(repository, name, kind="simple", config=config or "max_batch_size: 8")


def write_identity(
    repository: Path, name: str = "identity", *, config: str = "max_batch_size: 8", **keys: str
) -> Path:
    """OUTPUT0 = INPUT0, FP32 of any row length."""
    return write_model(repository, name, config=config, version=1, **{"kind": "identity", **keys})


def write_repeat(repository: Path, name: str = "repeat_int32") -> Path:
    """Decoupled: IN INT32[-1], DELAY UINT32[-1] ms, WAIT UINT32[1] ms -> OUT INT32[1], IDX."""
    config = "max_batch_size: 0\nmodel_transaction_policy { decoupled: true }"
    return write_model(repository, name, config=config, kind="repeat_int32")


def write_square(repository: Path, name: str = "square_int32") -> Path:
    """Decoupled: IN INT32[1] -> as many OUT INT32[1] as it says, each of them IN."""
    config = "max_batch_size: 0\nmodel_transaction_policy { decoupled: true }"
    return write_model(repository, name, config=config, kind="square_int32")


def write_blocked(repository: Path, gate: Path, name: str = "blocked", *, config: str = "") -> Path:
    """An identity that runs only once the file `gate` exists, one row at a time."""
    config = f"max_batch_size: 1\n{config}"
    return write_model(repository, name, kind="block_until_file", file=gate, config=config)


def write_plan(repository: Path, name: str = "plan", **parameters: str) -> Path:
    """A plan on fake GPUs: y = 2x + b + the row's number, x FP32 [16], b FP32 [1], n the number.

    Args:
        repository: the directory of models.
        name: of the model.
        parameters: of the configuration, such as `device` ("0", "1" or "0,1") or `cuda_graphs`.

    Returns:
        The model's directory.
    """
    pairs = {"plan": "1", **parameters}
    lines = [
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in pairs.items()
    ]
    directory = write_model(repository, name)
    config = 'backend: "fixture"\ndefault_model_filename: "model.plan"\nmax_batch_size: 8\n'
    (directory / "config.pbtxt").write_text(config + "".join(lines))
    (directory / "1" / "model.txt").unlink()
    (directory / "1" / "model.plan").write_text("fake-plan")
    return directory
