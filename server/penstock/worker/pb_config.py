"""ModelConfig: what `auto_complete_config` changes."""

from __future__ import annotations

from typing import Any

from penstock.worker.datatypes import number_of
from penstock.worker.failure import ModelFault


class ModelConfig:
    """A model's configuration as a dict of config.pbtxt's names, with Triton's methods."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Takes a configuration; what it says of max_batch_size, 0 included, is not changed."""
        self._config = config
        self._is_batch_size_written = "max_batch_size" in config
        config.setdefault("max_batch_size", 0)

    def as_dict(self) -> dict[str, Any]:
        """The dict itself."""
        return self._config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Sets it, where none was written.

        Raises:
            ValueError: the configuration has a smaller one.
        """
        written = self._config["max_batch_size"]
        if written > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {written}, but in auto-complete-config "
                f"function for model '{self._config['name']}' specified max_batch_size "
                f"{max_batch_size}"
            )
        if not self._is_batch_size_written:
            self._config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Batches dynamically, where no scheduler is written.

        Raises:
            ValueError: the configuration has another scheduler.
        """
        for other in ("sequence_batching", "ensemble_scheduling"):
            if self._config.get(other) is not None:
                raise ValueError(f"configuration specified scheduling_choice {other}")
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, transaction_policy: dict[str, bool]) -> None:
        """Sets whether the model is decoupled.

        Raises:
            ValueError: it names something else, or the configuration says otherwise.
        """
        if set(transaction_policy) != {"decoupled"}:
            raise ValueError(
                f"model transaction policy has {sorted(transaction_policy)}, "
                "expected 'decoupled' only"
            )
        written = self._config.get("model_transaction_policy")
        if written and written.get("decoupled") and not transaction_policy["decoupled"]:
            raise ValueError(
                "trying to change decoupled property in auto-complete-config from True"
            )
        self._config["model_transaction_policy"] = dict(transaction_policy)

    def add_input(self, input: dict[str, Any]) -> None:
        """Adds an input, or checks it against the one of its name; raises ValueError."""
        self._add("input", input, {"name", "data_type", "dims", "optional"})

    def add_output(self, output: dict[str, Any]) -> None:
        """Adds an output, or checks it against the one of its name; raises ValueError."""
        self._add("output", output, {"name", "data_type", "dims"})

    def _add(self, kind: str, tensor: dict[str, Any], known: set[str]) -> None:
        unknown = sorted(set(tensor) - known)
        if unknown:
            raise ValueError(f"{kind} has the unknown properties {unknown}")
        for name in ("name", "data_type", "dims"):
            if name not in tensor:
                raise ValueError(f"{kind} {tensor.get('name', '')!r} has no property '{name}'")
        try:
            number_of(tensor["data_type"])
        except ModelFault as error:
            raise ValueError(f"{kind} '{tensor['name']}': {error}") from None
        tensors = self._config.setdefault(kind, [])
        for written in tensors:
            if written["name"] == tensor["name"]:
                self._merge(kind, written, tensor)
                return
        tensors.append(dict(tensor))

    @staticmethod
    def _merge(kind: str, written: dict[str, Any], tensor: dict[str, Any]) -> None:
        for name, empty in (("data_type", "TYPE_INVALID"), ("dims", [])):
            value = written.get(name, empty)
            if value not in (empty, tensor[name]):
                raise ValueError(
                    f"unable to load model, configuration specified {name} {value!r} for {kind} "
                    f"'{tensor['name']}', but in auto-complete-config function specified "
                    f"{tensor[name]!r}"
                )
            written[name] = tensor[name]
        if tensor.get("optional"):
            written["optional"] = True
