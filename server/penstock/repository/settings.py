"""Settings of the repository: what to serve and how to load it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from penstock.codec import ModelConfig
from penstock.repository.environments import EnvironmentSettings


class BuiltPlan(Protocol):
    """A plan that is not removed as long as somebody refers to this, and has not let go.

    A load of the same model after its file has changed replaces it.
    """

    @property
    def path(self) -> Path:
        """Of its file."""

    def let_go(self) -> None:
        """It may be removed. Blocking; does not raise, and may be called again."""


class PlanBuilder(Protocol):
    """Makes plans of ONNX models. Threading: thread-safe."""

    def plan_of(
        self,
        model: Path,
        label: str,
        config: ModelConfig,
        device: str,
        rows: int,
        check: Callable[[], None],
    ) -> BuiltPlan:
        """The model's plan. Blocking: for minutes, where it has to be built.

        Args:
            model: its file.
            label: what messages call it.
            config: as written.
            device: the GPU that it is built for, as a number or a UUID.
            rows: of a batch at most, where the configuration does not say and the model can batch.
            check: called before minutes are spent on a build for this machine's devices: what it
                raises is why none can be run.

        Raises:
            CoreError, ConfigError: there is none; says why.
        """

    def maker_of(self, plan: Path) -> str | None:
        """What built a plan, and its version; None: nobody knows. Blocking: reads the plan."""

    def stats(self) -> Mapping[str, int] | None:
        """`bytes` of plans that are kept, and how many were `removed`; None: none was asked for."""

    def close(self) -> None:
        """Ends what is being built, whose callers fail."""


class OperationCounting(Protocol):
    """Counts what a row costs a model. Threading: thread-safe."""

    def of(
        self, label: str, path: Path, inputs: Mapping[str, tuple[int, ...]]
    ) -> Callable[[], int | None]:
        """What tells the operations of a run, and None as long as nobody knows.

        Nothing is counted before it is called; neither call waits.

        Args:
            label: for the log.
            path: of an ONNX file, or of a plan that was built of one.
            inputs: dims by name, -1 = open.
        """

    def close(self) -> None:
        """Ends what is being counted; does not wait."""


class DeviceCounting(Protocol):
    """Counts the GPUs that this process sees. Threading: thread-safe."""

    def count(self) -> int:
        """How many there are. Blocking: for as long as a driver takes to start.

        Raises:
            CoreError: nobody knows; says why.
        """

    def close(self) -> None:
        """Ends what is being counted, whose callers fail; does not wait."""


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """What the manager is given.

    Attributes:
        paths: the repositories; a model's name may be in one of them only.
        control_mode: "none" loads every model at start and takes no load or unload requests;
            "poll" does too, and follows the repositories (`poller.RepositoryPoller`); "explicit"
            loads `load_models` at start and takes them.
        load_models: names to load at start in mode explicit; "*" means all.
        exit_on_error: a model that fails to load at start stops the server.
        strict_readiness: the server is ready only while every model is.
        load_threads: loads that run at the same time.
        drain_timeout_s: how long replaced versions may take to finish their requests.
        background_batch_size: most rows of a batch of background requests; 0 =
            max_batch_size.
        backend_directories: where plug-ins are; only to name those that exist.
        memory_budget_bytes: of all models; 0 = none. With one they are loaded on demand.
        min_residency_s: a model that was loaded since is not unloaded for a load on demand.
        plans: for models of backend tensorrt that are given as ONNX; None: they are refused.
        gpus: counts them, for models on GPUs that name none; None: those are on the first.
        operations: what a row costs; None: what configurations do not say is not counted.
        environments: of Python models; None: a model that brings locked requirements is refused.
    """

    paths: tuple[Path, ...]
    control_mode: Literal["none", "poll", "explicit"] = "none"
    load_models: tuple[str, ...] = ()
    exit_on_error: bool = True
    strict_readiness: bool = True
    load_threads: int = 4
    drain_timeout_s: float = 30.0
    background_batch_size: int = 0
    backend_directories: tuple[Path, ...] = ()
    memory_budget_bytes: int = 0
    min_residency_s: float = 10.0
    environments: EnvironmentSettings | None = None
    plans: PlanBuilder | None = None
    operations: OperationCounting | None = None
    gpus: DeviceCounting | None = None
