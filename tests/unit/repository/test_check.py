from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text

from penstock.errors import StartupError
from penstock.repository import CheckedModel, RepositorySettings, check_repository


def test_every_fault_of_every_model_is_reported_and_nothing_is_made(tmp_path: Path) -> None:
    add_model(tmp_path, "bad-config", config='name: "x" max_batch_size: -1')
    add_model(tmp_path, "bad-file", versions=(1, 2), signature="no")
    add_model(tmp_path, "bad-text", config="foo: 1")
    add_model(tmp_path, "bad-warmup", config='max_batch_size: 1 model_warmup { name: "w" }')
    add_model(tmp_path, "good", versions=(1, 3), config="version_policy { all {} }")
    engine = FakeEngine()
    report = check_repository(engine, RepositorySettings((tmp_path,)))
    assert report.models[-1] == CheckedModel("good", "onnxruntime", (1, 3), runs_on="CPU")
    assert report.faults == (
        "bad-config: config.pbtxt: name: expected the name of the directory, 'bad-config', got 'x'",
        "bad-config: config.pbtxt: max_batch_size: expected 0 or more, got -1",
        "bad-file: version 2: the model file is corrupt",
        'bad-text: config.pbtxt:1: Message type "inference.ModelConfig" has no field named "foo".',
        "bad-warmup: config.pbtxt: model_warmup[0].inputs: input 'x' is missing",
    )
    assert engine.created == [] and engine.serving == {}


def test_missing_warm_up_file_is_found(tmp_path: Path) -> None:
    warmup = """model_warmup { name: "w" inputs { key: "x"
        value { data_type: TYPE_FP32 dims: 4 input_data_file: "gone" } } }"""
    add_model(tmp_path, "m", config=warmup)
    report = check_repository(FakeEngine(), RepositorySettings((tmp_path,)))
    assert report.faults == (
        "m: model_warmup 'w' input 'x': cannot read 'gone': No such file or directory",
    )


@pytest.mark.parametrize("config", ["", 'platform: "onnxruntime_onnx"', 'backend: "tensorrt"'])
def test_plan_that_lies_beside_the_onnx_that_is_served_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, config: str
) -> None:
    model = add_model(tmp_path, "m", versions=(1, 2), config=config)
    for version in ("1", "2"):
        (model / version / "model.plan").write_text(signature_text())
    report = check_repository(FakeEngine(), RepositorySettings((tmp_path,)))
    assert report.faults == ()
    told = (
        "model 'm': version 2 has model.onnx and model.plan, and its configuration names neither "
        "backend nor platform: model.onnx is served by onnxruntime, and model.plan is not "
        '(platform: "tensorrt_plan" has it served)'
    )
    assert caplog.messages == ([] if config else [told])


def test_model_in_two_repositories(tmp_path: Path) -> None:
    add_model(tmp_path / "a", "m")
    add_model(tmp_path / "b", "m")
    settings = RepositorySettings((tmp_path / "a", tmp_path / "b"))
    report = check_repository(FakeEngine(), settings)
    assert report.faults == ("m: the model is in 2 repositories, expected one",)


def test_unreadable_repository(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot read model repository"):
        check_repository(FakeEngine(), RepositorySettings((tmp_path / "gone",)))
