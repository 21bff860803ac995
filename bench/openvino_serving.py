"""The openvino backend over gRPC: ResNet-50 against the engine, digits against ONNX Runtime.

Run: .venv/bin/python bench/openvino_serving.py [--rounds 5] [--images 48] [--requests 20000]

ResNet-50 v1.5 has seeded random weights (what it says is worthless, what it costs is not). Each
round drives the same model with the same settings in this process, one image and eight images at a
time, then the server with eight one-image requests in flight, and takes the ratio to the better of
the two in-process figures. penstock-load sends the images, then the same requests with the image in
system shared memory: without a client on the engine's own cores that pushes 600 KB through a
socket. The models' configuration lets a batch wait 20 ms for the rest of the eight, as who has a
fixed number in flight would: without it batches of two and six take turns, which the engine runs
slower than batches of eight. The digits model is a 64-64-10 perceptron of plain ONNX operators,
which both backends can run; each round loads one, then the other.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import uuid4

import _measure
import numpy as np
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as op
from tritonclient.grpc import InferenceServerClient, service_pb2
from tritonclient.utils import shared_memory as shm

INFER = "/inference.GRPCInferenceService/ModelInfer"
IN_FLIGHT = 8
CONFIG = """
backend: "openvino"
max_batch_size: {rows}
dynamic_batching {{ max_queue_delay_microseconds: 20000 }}
parameters {{ key: "INFERENCE_PRECISION_HINT" value: {{ string_value: "{precision}" }} }}
"""


def resnet50(seed: int = 0) -> ov.Model:
    """ResNet-50 v1.5, batch norms folded: the stride is on the 3x3 convolution."""
    random = np.random.default_rng(seed)

    def conv(x: Any, inputs: int, outputs: int, size: int, stride: int = 1) -> Any:
        scale = np.sqrt(2 / (inputs * size * size))
        weights = (random.standard_normal((outputs, inputs, size, size)) * scale).astype(np.float32)
        pad = [size // 2] * 2
        made = op.convolution(x, op.constant(weights), [stride] * 2, pad, pad, [1, 1])
        return op.add(made, op.constant(np.zeros((1, outputs, 1, 1), np.float32)))

    def block(x: Any, inputs: int, width: int, stride: int) -> Any:
        y = op.relu(conv(x, inputs, width, 1))
        y = op.relu(conv(y, width, width, 3, stride))
        y = conv(y, width, width * 4, 1)
        if stride != 1 or inputs != width * 4:
            x = conv(x, inputs, width * 4, 1, stride)
        return op.relu(op.add(op.multiply(y, op.constant(np.float32(0.1))), x))

    image = op.parameter([-1, 3, 224, 224], dtype=np.float32, name="image")
    x = op.relu(conv(image, 3, 64, 7, 2))
    x = op.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3], "floor").output(0)
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            x = block(x, inputs, width, stride if index == 0 else 1)
            inputs = width * 4
    x = op.reduce_mean(x, op.constant(np.array([2, 3], np.int64)), False)
    weights = (random.standard_normal((2048, 1000)) * 0.01).astype(np.float32)
    logits = op.matmul(x, op.constant(weights), False, False)
    result = op.result(logits)
    image.output(0).get_tensor().set_names({"image"})
    logits.output(0).get_tensor().set_names({"logits"})
    return ov.Model([result], [image], "resnet50")


def perceptron(seed: int = 0) -> onnx.ModelProto:
    """The demo's digits classifier in shape: 64-64-10, softmax."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.standard_normal((64, 64)) / 8,
        "b1": np.zeros(64),
        "w2": random.standard_normal((64, 10)) / 8,
        "b2": np.zeros(10),
    }
    nodes = [
        helper.make_node("Gemm", ["X", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_repository(root: Path) -> None:
    """ResNet-50 in two precisions and digits for two backends."""
    for precision in ("f32", "bf16"):
        folder = root / f"resnet_{precision}" / "1"
        folder.mkdir(parents=True)
        ov.save_model(resnet50(), folder / "model.xml", compress_to_fp16=False)
        config = CONFIG.format(rows=IN_FLIGHT, precision=precision)
        (folder.parent / "config.pbtxt").write_text(config)
    for backend in ("onnxruntime", "openvino"):
        folder = root / f"digits_{backend}" / "1"
        folder.mkdir(parents=True)
        onnx.save(perceptron(), str(folder / "model.onnx"))
        (folder.parent / "config.pbtxt").write_text(
            f'backend: "{backend}" default_model_filename: "model.onnx"\n'
            "max_batch_size: 64 dynamic_batching { }\n"
        )


def request(model: str, name: str, shape: list[int]) -> bytes:
    """A one-row request, serialised."""
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name=name, datatype="FP32", shape=shape)
    data = np.random.default_rng(1).random(shape, np.float32)
    message.raw_input_contents.append(data.tobytes())
    serialised: bytes = message.SerializeToString()
    return serialised


@contextmanager
def shared_request(address: str, model: str, shape: list[int]) -> Iterator[bytes]:
    """A one-row request of the same values, which lie in registered memory for so long."""
    data = np.random.default_rng(1).random(shape, np.float32)
    name = f"penstock-bench-{uuid4().hex}"
    memory = shm.create_shared_memory_region(name, f"/{name}", data.nbytes)
    with InferenceServerClient(address) as client:
        try:
            shm.set_shared_memory_region(memory, [data])
            client.register_system_shared_memory(name, f"/{name}", data.nbytes)
            message = service_pb2.ModelInferRequest(model_name=model)
            given = message.inputs.add(name="image", datatype="FP32", shape=shape)
            given.parameters["shared_memory_region"].string_param = name
            given.parameters["shared_memory_byte_size"].int64_param = data.nbytes
            serialised: bytes = message.SerializeToString()
            yield serialised
            client.unregister_system_shared_memory(name)
        finally:
            shm.destroy_shared_memory_region(memory)


def compiled(model: Path, precision: str) -> ov.CompiledModel:
    """As the backend compiles it (csrc/backends/openvino/openvino_model.cc)."""
    mode = "ACCURACY" if precision == "f32" else "PERFORMANCE"
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "EXECUTION_MODE_HINT": mode,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    return ov.Core().compile_model(model, "CPU", properties)


def in_process(model: ov.CompiledModel, rows: int, images: int) -> float:
    """Images a second, `rows` at a time."""
    infer = model.create_infer_request()
    batch = np.random.default_rng(1).random((rows, 3, 224, 224), np.float32)
    infer.infer([batch], share_inputs=True, share_outputs=True)
    start_s = perf_counter()
    for _ in range(images // rows):
        infer.infer([batch], share_inputs=True, share_outputs=True)
    return images // rows * rows / (perf_counter() - start_s)


def show(name: str, values: list[float], unit: str) -> None:
    print(f"{name:40} {_measure.Spread(tuple(values))} {unit}", flush=True)


def served(address: str, body: bytes, images: int) -> float:
    """Images a second with eight requests in flight."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(body)
        flags = ["--concurrency", str(IN_FLIGHT), "--requests", str(images)]
        report = _measure.penstock_load(address, *flags, "--request", file.name)
    return float(report["rate"])


def measure_resnet(root: Path, address: str, precision: str, rounds: int, images: int) -> None:
    """Three ways in turn; the ratios of each round."""
    name = f"resnet_{precision}"
    shape = [1, 3, 224, 224]
    model = compiled(root / name / "1" / "model.xml", precision)
    rates: dict[str, list[float]] = {"in process": [], "served": [], "served, shared memory": []}
    with shared_request(address, name, shape) as shared:
        for round_ in range(rounds + 1):
            alone = max(in_process(model, 1, images), in_process(model, IN_FLIGHT, images))
            sent = served(address, request(name, "image", shape), images)
            found = (alone, sent, served(address, shared, images))
            if round_ > 0:
                for values, rate in zip(rates.values(), found, strict=True):
                    values.append(rate)
    bare = rates["in process"]
    for way, values in rates.items():
        show(f"{name} {way}", values, "images/s")
        if values is not bare:
            show(f"{name} {way}, ratio", [a / b for a, b in zip(values, bare, strict=True)], "")


def measure_digits(address: str, rounds: int, requests: int) -> None:
    """One backend, then the other."""
    rates: dict[str, list[float]] = {"digits_onnxruntime": [], "digits_openvino": []}
    for round_ in range(rounds + 1):
        for name, values in rates.items():
            with tempfile.NamedTemporaryFile() as body:
                Path(body.name).write_bytes(_measure.grpc_frame(request(name, "X", [1, 64])))
                rate = _measure.h2load(address, INFER, Path(body.name), requests, 1, 64)
            if round_ > 0:
                values.append(rate)
    for name, values in rates.items():
        show(name, values, "req/s")
    pairs = zip(rates["digits_openvino"], rates["digits_onnxruntime"], strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    print(f"{'digits ratio':40} {median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=48, help="per way and round")
    parser.add_argument(
        "--requests", type=int, default=20_000, help="digits, per backend and round"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        write_repository(Path(folder))
        with _measure.penstock(Path(folder), "--allow-client-shm=true") as (_, address):
            measure_digits(address, args.rounds, args.requests)
            for precision in ("f32", "bf16"):
                measure_resnet(Path(folder), address, precision, args.rounds, args.images)


if __name__ == "__main__":
    main()
