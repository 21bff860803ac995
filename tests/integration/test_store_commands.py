"""The store from the command line: what is pushed, and what every command shows of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.support.cli import Finished, penstock
from tests.support.models.onnx_files import add_constant, identity
from tests.support.models.python_files import add_python_model

from penstock.store.records import DeployStatus
from penstock.store.store import open_store

pytestmark = [pytest.mark.any_transport, pytest.mark.lengthy]

DIGEST = "sha256:0123456789abcdef"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    return tmp_path


def model_file(place: Path, constant: float = 1.0, name: str = "m.onnx") -> Path:
    path = place / name
    onnx.save(add_constant(constant), path)
    return path


async def done(*arguments: str | Path) -> str:
    end = await penstock(*map(str, arguments))
    assert end.code == 0, end.err
    return end.out


async def document(*arguments: str | Path) -> Any:
    return json.loads(await done(*arguments, "--json"))


async def failed(*arguments: str | Path) -> Sequence[str]:
    end: Finished = await penstock(*map(str, arguments))
    assert end.code == 1, (end.out, end.err)
    return end.err.splitlines()


async def test_push_records_what_is_given_and_what_is_found(place: Path) -> None:
    flags = ["--owner", "ada", "--team", "vision", "--license", "MIT", "--run", "r1"]
    flags += ["--data", f"train=s3://key:secret@lake/t@{DIGEST}", "--data", "test=/t"]
    flags += ["--feature", "b:2", "--feature", "a", "--metric", "accuracy=0.97@train"]
    flags += ["--description", "see https://u:secret@wiki/x", "--tag", "stage=new"]
    pushed = await document("push", "add", model_file(place), *flags, "--alias", "champion")
    shown = await document("show", "add@champion")
    assert shown == pushed
    assert (shown["owner"], shown["team"], shown["license"]) == ("ada", "vision", "MIT")
    assert shown["backend"] == "onnxruntime" and shown["source_format"] == "file"
    assert [each["name"] for each in shown["signature"]["inputs"]] == ["INPUT0"]
    assert shown["runtime"]["onnx"]["opsets"]["ai.onnx"] == 17
    kinds = {kind: [x for x in shown["links"] if x["kind"] == kind] for kind in ("data", "feature")}
    assert [(x["name"], x["uri"], x["digest"]) for x in kinds["data"]] == [
        ("train", "s3://lake/t", DIGEST),
        ("test", "/t", ""),
    ]
    assert [(x["name"], x["revision"]) for x in kinds["feature"]] == [("b", "2"), ("a", "")]
    assert shown["metrics"][0]["dataset_digest"] == DIGEST
    assert shown["aliases"] == ["champion"] and shown["tags"] == {"stage": "new"}


async def test_no_secret_is_anywhere_in_the_store(place: Path) -> None:
    flags = [
        "--data",
        f"t=s3://k:hunter2@lake/t?token=hunter2@{DIGEST}",
        "--run",
        "r=http://u:hunter2@h",
    ]
    flags += ["--tag", "url=http://u:hunter2@h/x", "--description", "http://u:hunter2@h"]
    end = await penstock("push", "add", str(model_file(place)), *flags)
    assert end.code == 0 and "hunter2" not in end.out + end.err
    await done("tag", "add@1", "more=http://u:hunter2@h")
    stored = b"".join(p.read_bytes() for p in (place / "store").rglob("*") if p.is_file())
    assert b"hunter2" not in stored


async def test_strict_push_names_everything_that_is_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert await failed("push", "add", model_file(place), "--strict") == [
        "Error: 'add' is refused by --strict: no owner: give --owner",
        "Error: 'add' is refused by --strict: no code: neither PATH nor this directory is a git "
        "commit",
        "Error: 'add' is refused by --strict: no data: give --data NAME=URI@DIGEST",
    ]
    assert await document("list") == []
    flags = ["--owner", "ada", "--data", "train=s3://lake/t", "--strict"]
    assert "Error: 'add' is refused by --strict: no digest of data 'train'" in "\n".join(
        await failed("push", "add", model_file(place), *flags)
    )


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--data", "x"], "--data: expected NAME=URI@DIGEST"),
        (["--data", "x=s3://lake/t@sha256:ab"], "--data x: 'sha256:ab' is no digest"),
        (["--metric", "a=b"], "--metric: expected NAME=VALUE@DATASET"),
        (["--metric", "a=1@nothing"], "'nothing' of 'a' is neither a digest nor of --data"),
        (["--metric", "a=1", "--metric", "a=2"], "--metric: 'a' is given twice"),
        (["--metric", "a=nan"], "expected a finite number"),
        (["--parent", "gone@1"], "no model 'gone'"),
        (["--tag", "x"], "--tag: expected KEY=VALUE"),
        (["--owner", "x" * 256], "--owner: expected at most 255"),
        (["--alias", "12"], "would look like a version"),
    ],
)
async def test_bad_flag_stores_nothing(place: Path, flags: list[str], fragment: str) -> None:
    (line,) = await failed("push", "add", model_file(place), *flags)
    assert fragment in line
    assert list((place / "store" / "artifacts" / "blobs").rglob("*/*")) == []


async def test_model_that_does_not_load_is_refused_and_leaves_nothing(place: Path) -> None:
    (place / "bad.onnx").write_bytes(b"no model")
    (line,) = await failed("push", "bad", place / "bad.onnx")
    assert line.startswith("Error: 'bad' would not load:")
    assert await document("list") == []
    assert list((place / "store" / "artifacts" / "blobs").rglob("*/*")) == []


async def test_python_model_is_pushed_with_its_requirements(place: Path) -> None:
    folder = add_python_model(place / "repo", "py", "class Model:\n    pass\n")
    (folder / "requirements.lock").write_text("numpy==2.0 --hash=sha256:0\n")
    pushed = await document("push", "py", folder)
    assert pushed["backend"] == "python" and pushed["source_format"] == "triton"
    assert pushed["requirements"] == ["numpy==2.0 --hash=sha256:0"]
    assert "was not built" in pushed["runtime"]["not inspected"]


async def test_lock_file_with_a_password_is_refused(place: Path) -> None:
    folder = add_python_model(place / "repo", "py", "class Model:\n    pass\n")
    lock = "numpy==2.0\n--index-url https://u:hunter2@h/simple\n"
    (folder / "requirements.lock").write_text(lock)
    (line,) = await failed("push", "py", folder)
    assert "'requirements.lock' line 2 has a URL with a user" in line and "hunter2" not in line


async def test_undeploy_says_what_is_wrong(place: Path) -> None:
    await done("push", "m", model_file(place))
    (line,) = await failed("undeploy", "m", "--from", "prod")
    assert "nothing of 'm' is deployed to 'prod'" in line
    await done("deploy", "m@1", "--to", "prod")
    assert "m@1 in prod: withdrawn" in await done("undeploy", "m", "--from", "prod")
    (line,) = await failed("undeploy", "m", "--from", "prod")
    assert "nothing of 'm' is deployed to 'prod'" in line
    assert "removed" in await done("rm", "m@1")


async def test_diff_shows_changes_and_what_breaks(place: Path) -> None:
    await done("push", "m", model_file(place))
    onnx.save(identity("FP64"), place / "other.onnx")
    await done("push", "m", place / "other.onnx", "--owner", "bob", "--parent", "m@1")
    found = await document("diff", "m@1", "m@2")
    assert {"what": "owner", "old": "", "new": "bob"} in found["changes"]
    assert "input 'INPUT0' was FP32 [-1, -1], is FP64 [-1, -1]" in found["breaking"]
    await done("push", "m", model_file(place, 2.0))
    shown = await done("diff", "m@1", "m@3")
    assert "m@3 may replace m@1" in shown
    assert "may replace" not in await done("diff", "m@1", "m@2")


async def test_life_of_a_version(place: Path) -> None:
    await done("push", "m", model_file(place))
    await done("push", "m", model_file(place, 2.0))
    assert "m@best: 1" in await done("alias", "m", "best", "1")
    told = await done("alias", "m", "best", "2")
    assert told.splitlines() == ["m@best: 2 (was 1)", "no environment follows it"]
    assert "a=1" in await done("tag", "m@best", "a=1")
    assert "archived" in await done("archive", "m@1")
    assert "m@2 is" not in await done("list", "m")
    assert "removed" in await done("rm", "m@1")
    (line,) = await failed("rm", "m@2")
    assert "it is 'best'" in line
    kinds = [event["kind"] for event in await document("log", "m")]
    assert kinds[:2] == ["pushed", "pushed"] and kinds[-2:] == ["archived", "removed"]
    assert [event["version"] for event in await document("log", "m@1")] == [1, 1, 1, 1]


async def test_version_that_was_removed_is_not_fetched_though_another_has_its_bytes(
    place: Path,
) -> None:
    await done("push", "m", model_file(place))
    await done("push", "m", model_file(place))
    await done("rm", "m@1")
    (line,) = await failed("fetch", "m@1", place / "fetched")
    assert line == "Error: m@1 is removed"
    await done("fetch", "m@2", place / "fetched")


async def test_alias_and_rollback_say_which_environment_follows(place: Path) -> None:
    for constant in (1.0, 2.0):
        await done("push", "m", model_file(place, constant))
    await done("alias", "m", "best", "1")
    asked = await document("deploy", "m@best", "--to", "prod")
    with open_store(str(place / "store")) as opened:
        opened.report(asked["id"], "server", DeployStatus.SERVING)
    assert "followed by prod" in await done("alias", "m", "best", "2")
    told = " ".join((await done("rollback", "m", "--in", "prod")).split())
    requested = "prod no longer follows best, unless this fails: "
    assert f"{requested}`penstock deploy m@best --to prod` has it follow again" in told
    assert "no environment follows it" in await done("alias", "m", "best", "1")
    with open_store(str(place / "store")) as opened:
        (back,) = (each for each in opened.environments_of("m") if each.kind == "rollback")
        opened.report(back.id, "server", DeployStatus.FAILED, reason="it is off")
    assert "followed by prod" in await done("alias", "m", "best", "2")


async def test_verify_finds_damage_and_says_so_by_its_exit_code(place: Path) -> None:
    pushed = await document("push", "m", model_file(place))
    assert "ok" in await done("verify")
    sha256 = pushed["files"][0]["sha256"]
    blob = place / "store" / "artifacts" / "blobs" / sha256[:2] / sha256
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    end = await penstock("verify", "m", "--json")
    assert end.code == 1
    assert json.loads(end.out)[0]["status"] == "QUARANTINED"
    again = await penstock("verify", "m")
    assert "missing: it was damaged, and put aside in quarantine/" in " ".join(again.out.split())
    (line,) = await failed("fetch", "m@1", place / "fetched")
    assert line.startswith("Error: m@1 is quarantined: ")


async def test_command_without_a_store_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    assert await failed("list") == [
        f"Error: there is no store at '{place / 'store'}': the first `penstock push` makes it"
    ]
    monkeypatch.delenv("PENSTOCK_STORE")
    assert await failed("list") == ["Error: no store is named: give --store or set PENSTOCK_STORE"]


async def test_file_that_is_no_store_is_not_taken_for_a_place_without_one(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    plain = place / "notes.txt"
    plain.write_text("bread, butter")
    is_file = (
        f"Error: '{plain}' is a file, and no store: expected a directory, or sqlite:///FILE for "
        "the database of one"
    )
    monkeypatch.setenv("PENSTOCK_STORE", str(plain))
    assert await failed("list") == [is_file]
    assert await failed("store", "upgrade") == [is_file]
    assert (await failed("push", "m", model_file(place)))[-1] == is_file
    monkeypatch.setenv("PENSTOCK_STORE", f"sqlite:///{plain}")
    assert await failed("list") == [
        f"Error: 'sqlite:///{plain}' is not the database of a store: file is not a database"
    ]
    assert plain.read_text() == "bread, butter"


async def test_deploy_and_rollback_say_what_is_wrong(place: Path) -> None:
    await done("push", "m", model_file(place))
    for command, fragment in (
        (("deploy", "m", "--to", "prod"), "say which version, as m@3 or m@champion"),
        (("deploy", "m@9", "--to", "prod"), "'m' has no version 9"),
        (("deploy", "m@1", "--to", "a/b"), "'a/b' is no name of an environment"),
        (("rollback", "m", "--in", "prod"), "nothing of 'm' is deployed to 'prod'"),
        (
            ("deploy", "m@1", "--to", "prod", "--wait", "0.2"),
            "no server said anything within 0.2 s: m@1 in prod: requested",
        ),
        (("rollback", "m", "--in", "prod"), "'m' has served no other version in 'prod' than 1"),
    ):
        (line,) = await failed(*command)
        assert fragment in line
    asked = await document("deploy", "m@1", "--to", "prod", "--allow-breaking")
    assert (asked["status"], asked["allow_breaking"], asked["version"]) == ("REQUESTED", True, 1)


async def test_what_servers_reported_is_objects_with_names(place: Path) -> None:
    await done("push", "m", model_file(place))
    await done("deploy", "m@1", "--to", "prod")
    with open_store(str(place / "store")) as store:
        (found,) = store.environments_of("m")
        store.report(found.id, "host", DeployStatus.SERVING, digest=DIGEST)
    (deployment,) = (await document("show", "m@1"))["deployments"]
    (report,) = deployment["reports"]
    assert report.pop("heard_ms") > 0
    assert report == {"server": "host", "status": "SERVING", "reason": "", "digest": DIGEST}


async def test_audit_of_a_server_that_is_not_there(place: Path) -> None:
    await done("push", "m", model_file(place))
    (line,) = await failed("audit", f"unix:{place}/nobody")
    assert "no server answers" in line
