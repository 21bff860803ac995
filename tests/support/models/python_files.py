"""Python models for tests: directories with a model.py."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

IDENTITY = """
    class Model:
        inputs = {"INPUT0": ("FP32", (-1,))}
        outputs = {"OUTPUT0": ("FP32", (-1,))}

        def predict(self, batch):
            return {"OUTPUT0": batch["INPUT0"]}
"""

TRITON_ADD_SUB = """
    import json

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(auto_complete_model_config):
            for name in ("INPUT0", "INPUT1"):
                auto_complete_model_config.add_input(
                    {"name": name, "data_type": "TYPE_FP32", "dims": [4]}
                )
            for name in ("OUTPUT0", "OUTPUT1"):
                auto_complete_model_config.add_output(
                    {"name": name, "data_type": "TYPE_FP32", "dims": [4]}
                )
            auto_complete_model_config.set_max_batch_size(8)
            auto_complete_model_config.set_dynamic_batching()
            return auto_complete_model_config

        def initialize(self, args):
            config = json.loads(args["model_config"])
            output = pb_utils.get_output_config_by_name(config, "OUTPUT0")
            self.dtype = pb_utils.triton_string_to_numpy(output["data_type"])
            pb_utils.Logger.log_warn("initialized " + args["model_name"])

        def execute(self, requests):
            responses = []
            for request in requests:
                a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
                b = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
                responses.append(
                    pb_utils.InferenceResponse(
                        output_tensors=[
                            pb_utils.Tensor("OUTPUT0", (a + b).astype(self.dtype)),
                            pb_utils.Tensor("OUTPUT1", (a - b).astype(self.dtype)),
                        ]
                    )
                )
            return responses

        def finalize(self):
            print("finalized")
"""


def add_python_model(
    repository: Path, name: str, source: str, *, config: str | None = None, version: int = 1
) -> Path:
    """Lays out a model; returns its directory.

    Args:
        repository: to put it into.
        name: of the model.
        source: of its model.py; may be indented.
        config: of its config.pbtxt; None = no such file.
        version: its number.
    """
    directory = repository / name
    (directory / str(version)).mkdir(parents=True)
    (directory / str(version) / "model.py").write_text(dedent(source))
    if config is not None:
        (directory / "config.pbtxt").write_text(config)
    return directory


def parameters(**values: object) -> str:
    """The text of a configuration's parameters."""
    return "\n".join(
        f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'
        for name, value in values.items()
    )
