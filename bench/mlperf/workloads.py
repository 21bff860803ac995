"""Models and query sample libraries: what is asked, and what the answers must be.

Each workload writes its model repository (ONNX, so that its operations can be counted), holds its
samples in memory, and has what ONNX Runtime itself, in this process and without Penstock, makes of
each: an answer is right if it agrees with that within the tolerance. Only digits has a truth
besides: whether the classifier is right is its accuracy, not the server's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from mlperf import networks
from tritonclient.grpc import service_pb2

Array = npt.NDArray[Any]
DATATYPES = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
CONFIG = """\
platform: "onnxruntime_onnx"
max_batch_size: %d
dynamic_batching { max_queue_delay_microseconds: 0 }
"""


@dataclass(eq=False)
class Workload:
    """A model with its samples.

    Attributes:
        name: of the workload and of the model.
        onnx: the model file's content; b"" where the model is none.
        inputs: by name, [samples, ...], or a list of [1, ...] where shapes differ; a request has
            one row of each. Elements of BYTES are bytes.
        answer: the output that is judged and, in accuracy mode, logged.
        truth: what the answer's greatest element or value must be, [samples]; None: unknown.
        tolerance: greatest difference to the reference, relative and absolute.
        max_batch_size: rows of a batch.
        window: samples under way in Offline.
        latency_ms: Server's bound at the 99th percentile.
        official_latency: whether that is MLPerf's.
        config: what config.pbtxt says besides.
        quick_percentile: of QUICK runs in MultiStream and Server: at the 99th they want 662 and 459
            queries, minutes of a slow model.
    """

    name: str
    onnx: bytes
    inputs: Mapping[str, Array | list[Array]]
    answer: str
    truth: Array | None = None
    tolerance: float = 1e-4
    max_batch_size: int = 64
    window: int = 256
    latency_ms: float = 5.0
    official_latency: bool = False
    least_accuracy: float = 0.99
    quick_percentile: float = 0.99
    config: str = ""

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def write_repository(self, root: Path) -> None:
        """Lays out <root>/<name>/."""
        folder = root / self.name / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(self.onnx)
        (folder.parent / "config.pbtxt").write_text(CONFIG % self.max_batch_size + self.config)

    @cached_property
    def reference(self) -> Array:
        """The answer of every sample, [samples, ...], by ONNX Runtime alone, row by row."""
        import onnxruntime

        session = onnxruntime.InferenceSession(self.onnx, providers=["CPUExecutionProvider"])
        rows = [session.run([self.answer], self.rows(sample)) for sample in range(self.size)]
        return np.concatenate([row[0] for row in rows])

    def prepare(self, say: Callable[[str], None]) -> None:
        """Computes the reference, once and before a run: it takes seconds, on the CPUs."""
        if "reference" in self.__dict__:
            return
        say(f"computing what is right for {self.size:,} samples, without the target")
        began = time.perf_counter()
        _ = self.reference  # which is kept
        say(f"computed in {time.perf_counter() - began:.1f} s")

    def rows(self, sample: int) -> dict[str, Array]:
        """A sample's inputs, [1, ...] each."""
        return {
            name: values[sample] if isinstance(values, list) else values[sample : sample + 1]
            for name, values in self.inputs.items()
        }

    def is_right(self, sample: int, answer: Array) -> bool:
        """Whether the answer to a sample agrees with the reference."""
        expected = self.reference[sample : sample + 1]
        if answer.shape != expected.shape or answer.dtype != expected.dtype:
            return False
        return bool(np.allclose(answer, expected, self.tolerance, self.tolerance))

    def score(self, answers: Mapping[int, Array]) -> float:
        """The share of samples whose answer, if there is one, is right.

        Where the truth is known the greatest element is the truth's; elsewhere it agrees with the
        reference.
        """
        if self.truth is None:
            right = sum(self.is_right(sample, answer) for sample, answer in answers.items())
        else:
            truth = self.truth
            right = sum(bool(answer.argmax() == truth[at]) for at, answer in answers.items())
        return right / self.size

    def grpc_requests(self) -> list[bytes]:
        """A ModelInferRequest for every sample."""
        return [self._grpc_request(sample) for sample in range(self.size)]

    def _grpc_request(self, sample: int) -> bytes:
        request = service_pb2.ModelInferRequest(model_name=self.name)
        for name, row in self.rows(sample).items():
            datatype = DATATYPES[row.dtype.name]
            request.inputs.add(name=name, datatype=datatype, shape=row.shape)
            request.raw_input_contents.append(_raw(row))
        request.outputs.add(name=self.answer)
        message: bytes = request.SerializeToString()
        return message

    def grpc_answers(self) -> list[bytes]:
        """For every sample a ModelInferResponse with the reference."""
        return [self._grpc_answer(sample) for sample in range(self.size)]

    def _grpc_answer(self, sample: int) -> bytes:
        row = self.reference[sample : sample + 1]
        response = service_pb2.ModelInferResponse(model_name=self.name, model_version="1")
        datatype = DATATYPES[row.dtype.name]
        response.outputs.add(name=self.answer, datatype=datatype, shape=row.shape)
        response.raw_output_contents.append(row.tobytes())
        message: bytes = response.SerializeToString()
        return message

    def grpc_answer(self, message: bytes) -> Array:
        """The answer in a ModelInferResponse; ValueError where it is none."""
        try:
            response = service_pb2.ModelInferResponse.FromString(message)
        except DecodeError as error:
            raise ValueError("not a ModelInferResponse") from error
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            if output.name == self.answer:
                return _array(output.datatype, list(output.shape), raw)
        raise ValueError(f"the response has no output '{self.answer}'")

    def http_requests(self) -> list[tuple[int, bytes]]:
        """For every sample the length of the JSON, and JSON and tensors: binary tensor data."""
        return [self._http_request(sample) for sample in range(self.size)]

    def _http_request(self, sample: int) -> tuple[int, bytes]:
        rows = self.rows(sample)
        raws = {name: _raw(row) for name, row in rows.items()}
        tensors = [
            {
                "name": name,
                "shape": list(row.shape),
                "datatype": DATATYPES[row.dtype.name],
                "parameters": {"binary_data_size": len(raws[name])},
            }
            for name, row in rows.items()
        ]
        outputs = [{"name": self.answer, "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": tensors, "outputs": outputs}).encode()
        return len(head), head + b"".join(raws.values())

    def http_answer(self, head_size: int, body: bytes) -> Array:
        """The answer in a response; ValueError where it is none."""
        output = json.loads(body[:head_size])["outputs"][0]
        if output["name"] != self.answer:
            raise ValueError(f"the response has no output '{self.answer}'")
        return _array(output["datatype"], output["shape"], body[head_size:])


def _raw(row: Array) -> bytes:
    """As raw contents: elements of BYTES with their lengths, 4 bytes little endian, before them."""
    if row.dtype != object:
        return row.tobytes()
    return b"".join(len(each).to_bytes(4, "little") + each for each in row.flat)


def _array(datatype: str, shape: list[int], raw: bytes) -> Array:
    names = {wire: name for name, wire in DATATYPES.items()}
    if datatype not in names or datatype == "BYTES":
        raise ValueError(f"expected FP32 or INT64, got {datatype}")
    return np.frombuffer(raw, names[datatype]).reshape(shape)


def digits() -> Workload:
    """The demo's classifier and the images that it was not trained on: real data, real truth."""
    from threadpoolctl import threadpool_limits

    from penstock.commands import _demo_model

    with threadpool_limits(1):  # more threads only wait for each other in matrices of 64
        model = _demo_model.train()
    return Workload(
        name="digits",
        onnx=model.onnx,
        inputs={_demo_model.INPUT: model.images},
        answer=_demo_model.PROBABILITIES,
        truth=model.truth,
        least_accuracy=0.99 * float(np.mean(model.labels == model.truth)),
    )


def resnet50() -> Workload:
    """ResNet-50 v1.5 with seeded random weights, on seeded random images."""
    images = np.random.default_rng(50).random((64, 3, 224, 224), np.float32)
    return Workload(
        name="resnet50",
        onnx=networks.resnet50(),
        inputs={"image": images},
        answer="logits",
        tolerance=1e-3,
        max_batch_size=8,
        window=16,
        latency_ms=15.0,
        official_latency=True,
        quick_percentile=0.9,
    )


def bert() -> Workload:
    """BERT-base with seeded random weights, on token ids of 128 to 384 tokens."""
    random = np.random.default_rng(30)
    lengths = random.choice([128, 192, 256, 320, 384], 20)
    ids = [random.integers(0, networks.BERT_BASE.vocabulary, (1, n), np.int64) for n in lengths]
    return Workload(
        name="bert",
        onnx=networks.bert(),
        inputs={"input_ids": ids},
        answer="pooled",
        tolerance=1e-3,
        max_batch_size=8,
        window=16,
        latency_ms=130.0,
        official_latency=True,
        quick_percentile=0.9,
    )


def minilm() -> Workload:
    """README.md's sentence encoder: a Python model; its environment is prepared where it is not."""
    from mlperf.minilm import MiniLm

    return MiniLm()


WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "digits": digits,
    "resnet50": resnet50,
    "bert": bert,
    "minilm": minilm,
}
