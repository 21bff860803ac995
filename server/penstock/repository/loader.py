"""ModelLoader: the blocking half of a load, from a model's directory to a version that is warm."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from penstock.codec import (
    ModelConfig,
    VersionPolicy,
    Warmup,
    encode_config_json,
    read_config_json,
    read_config_text,
)
from penstock.errors import (
    ConfigError,
    CoreError,
    InvalidArgumentError,
    NotFoundError,
    core_error,
)
from penstock.repository.backends import (
    INTERPRETER,
    PLANS_OF_ONNX,
    RUN_CODE,
    choose_backend,
    find_backends,
    unserved_plan,
)
from penstock.repository.catalog import ServedVersion
from penstock.repository.completion import Signature, complete, with_names
from penstock.repository.engine import EngineVersion, ModelEngine, ModelSource, OpenedModel
from penstock.repository.environments import Environments
from penstock.repository.faults import Faults
from penstock.repository.layout import (
    CONFIG_FILENAME,
    ModelDirectory,
    find_model,
    model_file,
    plan_or_onnx,
    read_config_file,
    read_labels,
    repositories_of,
    version_files,
)
from penstock.repository.override import restrict
from penstock.repository.own_parameters import instance_bounds, operations_per_inference
from penstock.repository.policy import choose_versions, missing_versions
from penstock.repository.seen_gpus import count_faults, on_seen_gpus, telling_of_gpus
from penstock.repository.serving import (
    backend_parameters,
    devices_of,
    row_dims,
    serving_spec,
    tensor_metadata,
)
from penstock.repository.settings import BuiltPlan, RepositorySettings
from penstock.repository.validation import config_faults, device_faults
from penstock.repository.warmup import warmup_request

_log = logging.getLogger("penstock.repository")

Telling = Callable[[], AbstractContextManager[None]]
"""`telling_of_gpus` of a load."""
OVERRIDE = "config parameter"
"""What faults call a configuration that came with a load request."""
_NO_PLAN = ".no-such.plan"
"""A file that no version has: hidden ones are not published."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a load will do.

    Attributes:
        model: the directory.
        config: as written, without faults of its own, with all that needs no model file filled in.
        source: what to call the configuration in faults.
        versions: to serve, ascending.
        labels: of the classification extension, by output.
    """

    model: ModelDirectory
    config: ModelConfig
    source: str
    versions: tuple[int, ...]
    labels: Mapping[str, tuple[str, ...]]


class OpenedVersion(NamedTuple):
    """A version that its backend has opened.

    Attributes:
        model: what the backend made of it.
        config: completed from it.
        built: the plan that it was opened from, where one was made of its file.
        telling: for what is done with it.
    """

    model: OpenedModel
    config: ModelConfig
    built: BuiltPlan | None
    telling: Telling


class ModelLoader:
    """Reads, checks, opens and warms up.

    Threading: thread-safe. Ownership: borrows the engine. Blocking: every method.
    """

    def __init__(self, engine: ModelEngine, settings: RepositorySettings) -> None:
        self._engine = engine
        self._settings = settings
        self._environments = Environments(settings.environments) if settings.environments else None

    def check_exists(self, name: str) -> None:
        """Raises CoreError unless a repository has the model."""
        repositories_of(self._settings.paths, name)

    def plan(
        self, name: str, config_json: str | None = None, *, only: int | None = None
    ) -> LoadPlan:
        """Reads and checks the configuration and decides what to load.

        Args:
            name: of the model.
            config_json: replaces the file's configuration, as far as `override` allows.
            only: the version to load, whatever the policy says; None = what the policy says.

        Raises:
            ConfigError: every fault of the configuration.
            CoreError: no repository has the model, or more than one.
        """
        model = find_model(self._settings.paths, name)
        source = CONFIG_FILENAME if config_json is None else OVERRIDE
        faults = Faults()
        config = self._config(model, config_json, faults)
        if only is not None:
            config = replace(config, version_policy=VersionPolicy("specific", versions=(only,)))
        faults.add(source, config_faults(config, name))
        backend = ""
        versions: tuple[int, ...] = ()
        labels: dict[str, tuple[str, ...]] = {}
        with faults.collect(source):
            backend = self._backend(model, config)
            faults.add(source, device_faults(config.instance_groups, backend, config.optimization))
            faults.add(source, count_faults(with_names(config, name, backend)))
        with faults.collect(source):
            versions = tuple(choose_versions(config.version_policy, model.versions))
        for index, output in enumerate(config.outputs):
            if output.label_filename:
                with faults.collect(source):
                    field = f"output[{index}].label_filename"
                    labels[output.name] = read_labels(model, output.label_filename, field)
        faults.raise_if_any()
        for version in missing_versions(config.version_policy, model.versions):
            text = "model '%s': %s names version %d, not found"
            about = {"model": name, "version": version}
            _log.warning(text, name, source, version, extra=about)
        files = {each: version_files(replace(model, versions=(each,))) for each in versions}
        if unserved := unserved_plan(config, backend, files):
            _log.warning("model '%s': %s", name, unserved, extra={"model": name})
        return LoadPlan(model, with_names(config, name, backend), source, versions, labels)

    def open_version(self, plan: LoadPlan, version: int) -> OpenedVersion:
        """Opens the model file of a version and completes the configuration from it.

        Raises:
            ConfigError: every fault of the configuration against the file.
            CoreError: the file is missing or its backend refused it; or how many GPUs there are is
                not known, and it is to run on all.
        """
        config, why = on_seen_gpus(plan.config, self._settings.gpus, plan.source)
        parameters = backend_parameters(config)
        devices = devices_of(config, parameters)
        if config.backend in RUN_CODE:
            parameters |= self._environment(plan)
        source = ModelSource(
            backend=config.backend,
            model_name=plan.model.name,
            version=version,
            path="",
            model_directory=str(plan.model.path),
            parameters=parameters,
            config_json=encode_config_json(config) if config.backend in RUN_CODE else "",
            devices=devices,
        )
        telling = partial(telling_of_gpus, why)
        path, built = self._model_path(plan, source, telling)
        with telling():
            opened = self._open(replace(source, path=str(path)))
        signature = Signature(
            tuple(opened.inputs),
            tuple(opened.outputs),
            opened.max_batch_size,
            opened.batches_dynamically,
            opened.is_decoupled,
            opened.most_rows,
        )
        completion = complete(config, signature)
        if completion.faults:
            raise ConfigError([f"{plan.source}: {fault}" for fault in completion.faults])
        return OpenedVersion(opened, completion.config, built, telling)

    def _open(self, source: ModelSource) -> OpenedModel:
        """A plan that is not taken says what built it: most are those of another version."""
        try:
            return self._engine.open_model(source)
        except InvalidArgumentError as error:
            plans = self._settings.plans if source.backend == PLANS_OF_ONNX else None
            maker = None if plans is None else plans.maker_of(Path(source.path))
            if maker is None:
                raise
            message = f"{error.message}; the plan was built by {maker}"
            raise type(error)(message, error.retry_after_ms) from error

    def _model_path(
        self, plan: LoadPlan, source: ModelSource, telling: Telling
    ) -> tuple[Path, BuiltPlan | None]:
        """What the backend opens: the model's file, or the plan that is made of it.

        A plan is made for the first of the devices: the others have to be of its kind.
        """
        version = source.version
        filename = plan.config.default_model_filename
        if plan.config.backend == PLANS_OF_ONNX:
            filename = plan_or_onnx(plan.model, version, filename)
        path = model_file(plan.model, version, filename)
        if plan.config.backend != PLANS_OF_ONNX or path.suffix != ".onnx":
            return path, None
        if self._settings.plans is None:
            raise ConfigError([f"version {version} is ONNX, and no engines are built here"])
        label = f"model '{plan.model.name}' version {version}"
        rows = int(source.parameters["max_batch_size"])  # as the backend is told
        device = source.devices[0]
        no_plan = replace(source, path=str(path.with_name(_NO_PLAN)))
        check = partial(self._check_plans_run, no_plan, telling)
        built = self._settings.plans.plan_of(path, label, plan.config, device, rows, check)
        return built.path, built

    def _check_plans_run(self, no_plan: ModelSource, telling: Telling) -> None:
        """Has the backend say what it lacks, before minutes are spent on what cannot be run.

        Raises:
            CoreError: no plan can be opened, whatever it is; says why.
        """
        for device in no_plan.devices:
            # What it says of a file only where it lacks nothing.
            with suppress(NotFoundError), telling():
                self._engine.open_model(replace(no_plan, devices=(device,)))

    def close(self) -> None:
        """Ends what loads are having built, and what is being counted."""
        for each in (self._settings.plans, self._settings.gpus, self._settings.operations):
            if each is not None:
                each.close()

    def prepare_environment(self, plan: LoadPlan) -> bool:
        """Builds the environment of a model that brings locked requirements, if it is not there.

        Returns:
            Whether one was built.

        Raises:
            ConfigError: it cannot be built.
        """
        if plan.config.backend not in RUN_CODE or self._environments is None:
            return False
        return self._environments.prepare(plan.model)

    def _environment(self, plan: LoadPlan) -> dict[str, str]:
        """What a model that is code is run by, as the parameter that its backend reads."""
        if INTERPRETER in plan.config.parameters:
            raise ConfigError([f"{plan.source}: parameters['{INTERPRETER}'] is the server's own"])
        if self._environments is None:
            return {}
        python = self._environments.interpreter_of(plan.model)
        return {} if python is None else {INTERPRETER: str(python)}

    def prepare(self, plan: LoadPlan, version: int) -> ServedVersion:
        """Opens a version, makes its instances and warms them up; it is ready to be started.

        Raises:
            ConfigError: as open_version, or a file of a warm-up cannot be used.
            CoreError: as open_version, or an instance or a warm-up failed.
        """
        try:
            return self._prepare(plan, version)
        except Exception as error:
            _free_locals(error)
            raise

    def _prepare(self, plan: LoadPlan, version: int) -> ServedVersion:
        opened, config, built, telling = self.open_version(plan, version)
        spec = serving_spec(
            config, version, plan.labels, background_batch_size=self._settings.background_batch_size
        )
        with telling():
            handle = self._engine.create_version(opened, spec)
            warmups = _warmup_requests(plan, config, version)
            for warmup, request in warmups:
                _warm_up(handle, version, warmup, request)
        inputs, outputs = tensor_metadata(config, "input"), tensor_metadata(config, "output")
        kept = warmups if instance_bounds(config) is not None else []
        again = tuple(request for warmup, request in kept for _ in range(max(warmup.count, 1)))
        return ServedVersion(
            version,
            config,
            inputs,
            outputs,
            handle,
            again,
            opened.runs_on,
            opened.engine,
            self._operations(plan, config, version),
            built,
        )

    def _operations(
        self, plan: LoadPlan, config: ModelConfig, version: int
    ) -> Callable[[], int | None]:
        """What tells the operations of a row: the configuration, a graph, what a plan is of."""
        declared = operations_per_inference(config)
        filename = config.default_model_filename
        if config.backend == PLANS_OF_ONNX:
            filename = plan_or_onnx(plan.model, version, filename)
        counting = self._settings.operations
        is_counted = filename.endswith((".onnx", ".plan"))
        if declared is not None or counting is None or not is_counted:
            return lambda: declared
        label = f"model '{plan.model.name}' version {version}"
        return counting.of(label, model_file(plan.model, version, filename), row_dims(config))

    def check_version(self, plan: LoadPlan, version: int) -> str:
        """Does all of `prepare` that makes no instance and runs nothing; raises as it does.

        Returns:
            Where the version would compute.
        """
        opened, config, *_ = self.open_version(plan, version)
        _warmup_requests(plan, config, version)
        return opened.runs_on

    def _config(
        self, model: ModelDirectory, config_json: str | None, faults: Faults
    ) -> ModelConfig:
        if config_json is None:
            text = read_config_file(model)
            if text is None:
                return ModelConfig()
            reading = read_config_text(text, CONFIG_FILENAME)
            faults.add_full(reading.faults)
            return reading.config
        reading = read_config_json(config_json, OVERRIDE)
        faults.add_full(reading.faults)
        written = self._config(model, None, Faults())  # its own faults do not matter here
        config, refused = restrict(reading.config, written, self._backend(model, written))
        faults.add(OVERRIDE, refused)
        return config

    def _backend(self, model: ModelDirectory, config: ModelConfig) -> str:
        available = find_backends(self._settings.backend_directories)
        return choose_backend(config, version_files(model), available)


def _warmup_requests(
    plan: LoadPlan, config: ModelConfig, version: int
) -> list[tuple[Warmup, bytes]]:
    has_batch = bool(config.max_batch_size)
    return [
        (warmup, warmup_request(plan.model, version, warmup, has_batch))
        for warmup in config.warmups
    ]


def _free_locals(error: BaseException | None) -> None:
    """Lets go, here and now, of the model that the frames of a failure hold: the error lives on."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _warm_up(handle: EngineVersion, version: int, warmup: Warmup, request: bytes) -> None:
    try:
        for _ in range(max(warmup.count, 1)):
            handle.warm_up(request)
    except CoreError as error:
        message = f"version {version}: warm-up '{warmup.name}' failed: {error.message}"
        raise core_error(error.code, message) from error
