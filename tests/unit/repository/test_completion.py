"""What is filled in from the model file, and what is wrong against it."""

from dataclasses import replace

import pytest

from penstock.codec import ModelConfig, TensorConfig, read_config_text
from penstock.repository.completion import Completion, Signature, complete, with_names
from penstock.repository.engine import FileTensor

BATCHED = Signature(
    (FileTensor("a", "FP32", (-1, 3)), FileTensor("b", "BYTES", (-1, 1), optional=True)),
    (FileTensor("y", "INT64", (-1,)),),
)
FIXED = Signature((FileTensor("a", "FP32", (1, 3)),), (FileTensor("y", "INT64", (-1, 2)),))
SCALAR = Signature((FileTensor("a", "FP32", ()),), (FileTensor("y", "FP32", ()),))


def completed(
    text: str, signature: Signature = BATCHED, backend: str = "onnxruntime"
) -> Completion:
    reading = read_config_text(text, "config.pbtxt")
    assert reading.faults == ()
    return complete(with_names(reading.config, "m", backend), signature)


def test_absent_configuration_of_a_model_that_can_batch() -> None:
    result = completed("")
    assert result.faults == ()
    config = result.config
    assert (config.name, config.backend, config.platform) == (
        "m",
        "onnxruntime",
        "onnxruntime_onnx",
    )
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == 64
    assert config.dynamic_batching is not None
    assert config.dynamic_batching.max_queue_delay_us == 0
    assert config.inputs == (TensorConfig("a", "FP32", (3,)),)
    assert config.outputs == (TensorConfig("y", "INT64", ()),)
    (group,) = config.instance_groups
    assert (group.name, group.count, group.kind) == ("m", 1, "KIND_CPU")


LANES_OF_4 = 'parameters { key: "lanes" value { string_value: "4" } }'
TWO_DEVICES = 'parameters { key: "device" value { string_value: "GPU-1,GPU-2" } }'
BOUNDED = 'parameters { key: "instances_max" value { string_value: "3" } }'


@pytest.mark.parametrize(
    ("text", "backend", "count"),
    [
        ("instance_group { kind: KIND_GPU }", "onnxruntime", 2),
        ("instance_group { gpus: [0, 1] }", "onnxruntime", 2),
        ("", "tensorrt", 4),
        ("instance_group { count: 1 }", "tensorrt", 1),
        (LANES_OF_4, "tensorrt", 8),
        (TWO_DEVICES, "tensorrt", 8),
        (TWO_DEVICES + "instance_group { gpus: [0, 1] }", "tensorrt", 4),
        (LANES_OF_4.replace('"4"', '"many"'), "tensorrt", 4),
        (BOUNDED, "tensorrt", 1),
        ("instance_group { kind: KIND_CPU }" + LANES_OF_4, "onnxruntime", 1),
        ("instance_group { kind: KIND_GPU }", "fixture", 1),
    ],
)
def test_instances_are_as_many_as_batches_may_be_under_way_on_a_gpu(
    text: str, backend: str, count: int
) -> None:
    config = with_names(read_config_text(text, "config.pbtxt").config, "m", backend)
    assert [group.count for group in config.instance_groups] == [count]


@pytest.mark.parametrize("signature", [FIXED, SCALAR])
def test_absent_configuration_of_a_model_that_cannot_batch(signature: Signature) -> None:
    result = completed("", signature)
    assert result.faults == ()
    assert result.config.max_batch_size == 0
    assert result.config.dynamic_batching is None
    assert result.config.inputs[0].dims == signature.inputs[0].dims


@pytest.mark.parametrize(
    ("text", "max_batch_size", "batches"),
    [
        ("max_batch_size: 0", 0, False),
        ('name: "m" max_batch_size: 0  # max_batch_size: 8', 0, False),
        ("# max_batch_size: 0", 64, True),
        ('parameters { key: "max_batch_size: 3" value {} }', 64, True),
        ("max_batch_size: 8", 8, False),
        ("max_batch_size: 8 dynamic_batching {}", 8, True),
        ('input { name: "a" dims: [3] }', 64, True),
        ('input { name: "a" dims: [-1, 3] }', 0, False),
    ],
)
def test_batch_size_and_batching(text: str, max_batch_size: int, batches: bool) -> None:
    config = completed(text).config
    assert config.max_batch_size == max_batch_size
    assert (config.dynamic_batching is not None) is batches


def test_listed_tensors_are_completed() -> None:
    config = completed('max_batch_size: 2 input { name: "a" } output { name: "y" }').config
    assert config.inputs == (TensorConfig("a", "FP32", (3,)),)
    assert config.outputs == (TensorConfig("y", "INT64", ()),)


def test_narrower_dims_and_fewer_outputs_are_kept() -> None:
    signature = Signature(
        (FileTensor("a", "FP32", (-1, -1)),),
        (FileTensor("y", "FP32", (-1, 2)), FileTensor("z", "FP32", (-1, 2))),
    )
    result = completed(
        'max_batch_size: 2 input { name: "a" dims: 7 } output { name: "z" }', signature
    )
    assert result.faults == ()
    assert result.config.inputs[0].dims == (7,)
    assert [tensor.name for tensor in result.config.outputs] == ["z"]


def test_optional_inputs_are_served_where_they_are_listed() -> None:
    weights = FileTensor("w", "FP32", (3, 3), optional=True)
    signature = Signature((*BATCHED.inputs, weights), BATCHED.outputs)
    assert completed("", signature).config.max_batch_size == 64
    config = completed('input { name: "a" } input { name: "b" optional: true }', signature).config
    assert [(tensor.name, tensor.optional) for tensor in config.inputs] == [
        ("a", False),
        ("b", True),
    ]
    config = completed('input { name: "a" } input { name: "w" }', signature).config
    assert (config.max_batch_size, config.inputs[1].dims) == (0, (3, 3))


def test_output_that_is_not_served_need_not_batch() -> None:
    signature = Signature(BATCHED.inputs, (*BATCHED.outputs, FileTensor("loss", "FP32", ())))
    assert completed("", signature).config.max_batch_size == 0
    result = completed('max_batch_size: 4 output { name: "y" }', signature)
    assert result.faults == ()


def test_reshape_is_what_the_file_is_compared_with() -> None:
    text = 'max_batch_size: 2 output {{ name: "y" dims: 1 reshape {{ shape: [{}] }} }}'
    assert completed(text.format("")).faults == ()
    assert completed(text.format("1")).faults == (
        "output[0].reshape.shape: 'y' is [] in the model file, without the batch dimension, "
        "got [1]",
    )


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            'max_batch_size: 2 input { name: "q" dims: 3 }',
            [
                "input[0].name: the model file has no input 'q', it has 'a', 'b'",
                "input: the model file requires input 'a' (2 in all), it is not listed",
            ],
        ),
        (
            'max_batch_size: 2 input { name: "a" data_type: TYPE_FP64 dims: [4] }',
            [
                "input[0].data_type: 'a' is FP32 in the model file, got FP64",
                "input[0].dims: 'a' is [3] in the model file, without the batch dimension, got [4]",
            ],
        ),
        (
            'max_batch_size: 0 input { name: "a" dims: [3] }',
            ["input[0].dims: 'a' is [-1, 3] in the model file, got [3]"],
        ),
        (
            'max_batch_size: 2 input { name: "a" dims: -1 }',
            ["input[0].dims: 'a' is [3] in the model file, without the batch dimension, got [-1]"],
        ),
        (
            'max_batch_size: 2 input { name: "a" optional: true }',
            ["input[0].optional: the model file requires input 'a'"],
        ),
        (
            'input { name: "a" } input { name: "b" optional: true } '
            'model_warmup { name: "w" batch_size: 65 inputs { key: "b" value { '
            "data_type: TYPE_FP32 dims: 1 zero_data: true } } }",
            [
                "model_warmup[0].batch_size: 65 is more than max_batch_size",
                "model_warmup[0].inputs: input 'a' is missing",
                "model_warmup[0].inputs['b'].data_type: expected BYTES, got FP32",
            ],
        ),
        (
            'model_warmup { name: "w" inputs { key: "a" value { data_type: TYPE_FP32 '
            'dims: [1, 3] zero_data: true } } inputs { key: "q" value { data_type: TYPE_BOOL } } }',
            [
                "model_warmup[0].inputs['a'].dims: expected [3], got [1, 3]",
                "model_warmup[0].inputs['q']: the model has no such input",
            ],
        ),
    ],
)
def test_faults_against_the_file(text: str, faults: list[str]) -> None:
    assert list(completed(text).faults) == faults


def test_batching_needs_a_batch_dimension_everywhere() -> None:
    (fault,) = completed("max_batch_size: 4", FIXED).faults
    assert fault == (
        "max_batch_size: 4 needs a model with a batch dimension, but input 'a' has shape [1, 3] "
        "in the model file, expected -1 first"
    )


def test_completing_twice_changes_nothing() -> None:
    once = completed("").config
    assert complete(once, BATCHED) == Completion(once, ())
    assert with_names(once, "m", "onnxruntime") == once


def test_backend_without_a_platform_is_its_own() -> None:
    config = with_names(ModelConfig(), "m", "fixture")
    assert (config.platform, config.default_model_filename) == ("fixture", "")


CODE = Signature(BATCHED.inputs, BATCHED.outputs, max_batch_size=8, batches_dynamically=True)


def test_model_that_is_code_says_how_it_is_batched() -> None:
    config = completed("", CODE).config
    assert config.max_batch_size == 8
    assert config.dynamic_batching is not None


def test_configuration_goes_before_what_code_says() -> None:
    config = completed("max_batch_size: 4", CODE).config
    assert config.max_batch_size == 4


def test_code_without_a_batch_dimension_is_not_batched_for_its_open_shapes() -> None:
    signature = Signature(BATCHED.inputs, BATCHED.outputs, max_batch_size=0)
    config = completed("", signature).config
    assert config.max_batch_size == 0
    assert config.dynamic_batching is None
    assert config.inputs[0].dims == (-1, 3)


PLAN_OF_8 = Signature(BATCHED.inputs, BATCHED.outputs, most_rows=8)


@pytest.mark.parametrize(
    ("most_rows", "text", "max_batch_size"),
    [
        (8, "", 8),
        (128, "", 64),
        (8, "max_batch_size: 4", 4),
        (8, "max_batch_size: 8", 8),
        (8, 'input { name: "a" dims: [-1, 3] }', 0),
    ],
)
def test_batches_of_a_plan_have_at_most_the_rows_that_it_was_built_for(
    most_rows: int, text: str, max_batch_size: int
) -> None:
    result = completed(text, replace(PLAN_OF_8, most_rows=most_rows))
    assert (result.config.max_batch_size, result.faults) == (max_batch_size, ())


PREFERRED = "dynamic_batching {{ preferred_batch_size: [{}] }}"


@pytest.mark.parametrize(
    ("backend", "more"),
    [
        (
            "tensorrt",
            "is more rows than the plan was built for, 8: expected at most 8, or a plan that is "
            "built anew (penstock build-engine)",
        ),
        (
            "onnxruntime",
            "is more rows than its shapes allow on a GPU, 8: expected at most 8, or a greater "
            "parameter shape:NAME",
        ),
    ],
)
def test_batches_that_are_written_larger_than_the_model_takes_are_a_fault(
    backend: str, more: str
) -> None:
    written = "max_batch_size: 16 " + PREFERRED.format("16")
    assert completed(written, PLAN_OF_8, backend).faults == (f"max_batch_size: 16 {more}",)
    (fault,) = completed(PREFERRED.format("4, 16"), PLAN_OF_8, backend).faults
    assert fault == f"dynamic_batching.preferred_batch_size: 16 {more}"
    assert completed(PREFERRED.format("4, 8"), PLAN_OF_8, backend).faults == ()


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_preferred_batches_beyond_the_servers_own_bound_need_one_that_is_written(
    backend: str,
) -> None:
    """Neither a plan that is built anew nor greater shapes would have room for them."""
    of_64 = replace(PLAN_OF_8, most_rows=64)
    cures = [
        fault.rpartition(" rows than ")[2].partition(", or ")[2]
        for fault in completed(PREFERRED.format("65, 128"), of_64, backend).faults
    ]
    assert cures == ["max_batch_size: 128 to be written"] * 2
    (fault,) = completed("max_batch_size: 128 " + PREFERRED.format("128"), of_64, backend).faults
    assert "written" not in fault


def test_decoupled_code_makes_the_configuration_so_and_nothing_else() -> None:
    signature = Signature(BATCHED.inputs, BATCHED.outputs, is_decoupled=True)
    assert completed("", signature).config.decoupled is True
    assert completed("").config.decoupled is None
    (fault,) = completed("model_transaction_policy { }", signature).faults
    assert "model_transaction_policy.decoupled" in fault
