"""What may be pushed, and the one form that it is brought into."""

from pathlib import Path

import pytest
import yaml

from penstock.store.failures import RefusedError
from penstock.store.layout import place_of
from penstock.store.package import make_package


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def packed(path: Path, from_version: int | None = None) -> dict[str, str]:
    """Paths of the artifact, and what is there: the text of the file."""
    package = make_package(path, from_version)
    return {
        each.path: each.source.decode().strip()
        if isinstance(each.source, bytes)
        else each.source.read_text()
        for each in package.files
    }


def test_onnx_file_is_the_version(tmp_path: Path) -> None:
    assert packed(write(tmp_path, "my model.onnx") / "my model.onnx") == {
        "version/model.onnx": "my model.onnx"
    }


def test_openvino_file_brings_its_weights(tmp_path: Path) -> None:
    write(tmp_path, "a.xml")
    with pytest.raises(RefusedError, match=r"needs its weights beside it: 'a.bin'"):
        make_package(tmp_path / "a.xml")
    assert packed(write(tmp_path, "a.bin") / "a.xml") == {
        "version/model.xml": "a.xml",
        "version/model.bin": "a.bin",
    }


def test_file_of_another_name_is_told_to_the_configuration(tmp_path: Path) -> None:
    assert packed(write(tmp_path, 'm"1.tflite') / 'm"1.tflite') == {
        "config.pbtxt": 'default_model_filename: "m\\"1.tflite"',
        'version/m"1.tflite': 'm"1.tflite',
    }


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pt", "m.PICKLE"])
def test_pickle_is_refused_unopened(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError, match="never opened"):
        make_package(write(tmp_path, name) / name)


def test_python_directory_keeps_its_lock_beside_the_version(tmp_path: Path) -> None:
    write(tmp_path, "model.py", "lib/helper.py", "__pycache__/x.pyc", ".git/config", "warmup/x")
    (tmp_path / "requirements.lock").write_text("# c\nnumpy==2.0 \\\n  --hash=sha256:1\n")
    package = make_package(tmp_path)
    assert {each.path for each in package.files} == {
        "requirements.lock",
        "warmup/x",
        "version/model.py",
        "version/lib/helper.py",
    }
    assert package.requirements == ("numpy==2.0",)


def test_single_model_of_any_name_in_a_directory(tmp_path: Path) -> None:
    found = packed(write(tmp_path, "net.onnx", "weights.data"))
    assert found["config.pbtxt"] == 'default_model_filename: "net.onnx"'
    assert found["version/weights.data"] == "weights.data"


def test_saved_model_directory(tmp_path: Path) -> None:
    found = packed(write(tmp_path, "saved_model.pb", "variables/v"))
    assert set(found) == {
        "config.pbtxt",
        "version/model.saved_model/saved_model.pb",
        "version/model.saved_model/variables/v",
    }


def test_model_directory_gives_its_latest_version_or_the_one_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "config.pbtxt", "labels.txt", "2/model.onnx", "10/model.onnx", "010/x")
    assert packed(tmp_path)["version/model.onnx"] == "10/model.onnx"
    found = packed(tmp_path, 2)
    assert found["version/model.onnx"] == "2/model.onnx"
    assert set(found) == {"config.pbtxt", "labels.txt", "version/model.onnx", "010/x"}
    with pytest.raises(RefusedError, match="has no version 3, it has 2, 10"):
        make_package(tmp_path, 3)


def test_directory_without_a_model_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"expected model.onnx, model.xml, model.py"):
        make_package(write(tmp_path, "readme.txt"))


def test_links_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "m/model.onnx")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    (tmp_path / "m" / "secret").symlink_to("/etc/passwd")
    for path in (tmp_path / "m", tmp_path / "link"):
        with pytest.raises(RefusedError, match="symbolic link"):
            make_package(path)


def mlflow(root: Path, **content: object) -> Path:
    write(root, "model.onnx", "requirements.txt", "python_model.pkl")
    (root / "MLmodel").write_text(yaml.safe_dump(content))
    return root


def test_mlflow_directory_gives_its_onnx_flavor_and_its_run(tmp_path: Path) -> None:
    flavors = {"onnx": {"data": "model.onnx"}, "python_function": {"loader_module": "mlflow.onnx"}}
    package = make_package(
        mlflow(tmp_path, flavors=flavors, run_id="abc", mlflow_version="2.9", model_uuid="u")
    )
    assert {each.path for each in package.files} == {"version/model.onnx", "MLmodel"}
    assert package.links[0].kind == "run" and package.links[0].name == "abc"
    assert package.runtime == {"mlflow": {"mlflow_version": "2.9", "model_uuid": "u"}}
    assert package.requirements == ("requirements.txt",)


@pytest.mark.parametrize("place", ["", "onnx/"])
def test_mlflow_directory_brings_the_weights_that_lie_outside_of_the_model(
    tmp_path: Path, place: str
) -> None:
    write(tmp_path, f"{place}big.onnx", f"{place}big.data", f"{place}w/layer0", f"{place}notes")
    (tmp_path / place / "big.onnx").write_bytes(b"\0location\0big.data\0location\0w/layer0")
    package = make_package(mlflow(tmp_path, flavors={"onnx": {"data": f"{place}big.onnx"}}))
    assert {each.path: each.source for each in package.files} == {
        "version/model.onnx": tmp_path / place / "big.onnx",
        "version/big.data": tmp_path / place / "big.data",
        "version/w/layer0": tmp_path / place / "w" / "layer0",
        "MLmodel": tmp_path / "MLmodel",
    }
    (tmp_path / place / "big.onnx").write_bytes(b"")
    paths = {each.path for each in make_package(tmp_path).files}
    assert paths == {"version/model.onnx", "MLmodel"}


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ({"flavors": {"sklearn": {"pickled_model": "m.pkl"}}}, "sklearn: none of them can be"),
        ({"flavors": {"onnx": {"data": "../../etc/passwd"}}}, "not a plain path"),
        ({"flavors": {"onnx": {"data": "/etc/passwd"}}}, "is absolute"),
        ({"flavors": {"onnx": {"data": "gone.onnx"}}}, "names 'gone.onnx', which is not there"),
        ({"run_id": "x"}, "has no flavors"),
    ],
)
def test_mlflow_directory_that_cannot_be_served(
    tmp_path: Path, content: dict[str, object], fragment: str
) -> None:
    with pytest.raises(RefusedError, match=fragment):
        make_package(mlflow(tmp_path, **content))


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.system ['true']", "[" * 9999])
def test_mlmodel_that_is_no_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, "model.onnx")
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(RefusedError, match="is not YAML"):
        make_package(tmp_path)


def test_mlmodel_that_would_be_endless_when_written_out_is_read(tmp_path: Path) -> None:
    write(tmp_path, "model.onnx")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    lines += ["flavors: {onnx: {data: model.onnx}}", "signature: {inputs: *a11}", "run_id: *a11"]
    (tmp_path / "MLmodel").write_text("\n".join(lines))
    package = make_package(tmp_path)
    assert package.runtime == {"mlflow": {"signature": {"inputs": ""}}}
    assert package.links == ()


def test_file_of_an_artifact_has_its_place_in_a_repository() -> None:
    assert place_of("version/a/b", 7) == "7/a/b"
    assert place_of("config.pbtxt", 7) == "config.pbtxt"
    with pytest.raises(RefusedError):
        place_of("version/../../x", 7)
