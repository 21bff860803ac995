"""Engines of ONNX models: built by a child when a load needs one, whose every end has a name."""

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.codec import DynamicBatching, ModelConfig
from penstock.engines import VISIBLE_DEVICES, EngineCache, EngineCacheSettings, verify_engine
from penstock.errors import CancelledError, ConfigError, FailedPreconditionError

ROOT = Path(__file__).resolve().parents[3]
LABEL = "model 'm' version 1"
FAKE = """
from tests.support.fake_tensorrt import FakeTensorRt
fake = FakeTensorRt({arguments})
sys.modules["tensorrt"] = sys.modules["tensorrt_rtx"] = fake
from penstock.engines.child import main
sys.exit(main(int(sys.argv[1])))
"""
MakeCache = Callable[..., EngineCache]


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    model = tmp_path / "models" / "m" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"onnx")
    return model


@pytest.fixture
def make_cache(tmp_path: Path) -> MakeCache:
    """A cache whose child is a program of the test's."""

    def make(program: str, flavour: str = "tensorrt_rtx", limit_s: float = 60.0) -> EngineCache:
        script = tmp_path / "child.py"
        script.write_text(f"import os, signal, sys\nsys.path.insert(0, {str(ROOT)!r})\n{program}")
        settings = EngineCacheSettings(
            tmp_path / "cache", limit_s, (sys.executable, str(script)), flavour
        )
        return EngineCache(settings)

    return make


def refusal(
    cache: EngineCache, onnx: Path, config: ModelConfig | None = None, device: str = "0"
) -> str:
    with pytest.raises(FailedPreconditionError) as raised:
        cache.plan_of(onnx, LABEL, config or ModelConfig(max_batch_size=8), device)
    assert str(onnx.parents[3]) not in str(raised.value), "no paths: clients read it"
    return str(raised.value).removeprefix(f"{LABEL}: its engine cannot be built: ")


def test_plan_is_built_of_the_configurations_batches_and_found_again(
    onnx: Path, make_cache: MakeCache
) -> None:
    cache = make_cache(FAKE.format(arguments=""))
    config = ModelConfig(
        max_batch_size=8, dynamic_batching=DynamicBatching(preferred_batch_sizes=(2,))
    )
    plan = cache.plan_of(onnx, LABEL, config).path
    sidecar = verify_engine(plan)
    assert [each["x"][2] for each in sidecar["recipe"]["profiles"]] == [[1, 4], [2, 4], [8, 4]]
    written = plan.stat()
    assert cache.plan_of(onnx, LABEL, config).path == plan
    assert plan.stat().st_mtime_ns == written.st_mtime_ns, "it was not built again"


def test_model_that_does_not_say_how_it_batches_is_built_as_it_will_be_served(
    onnx: Path, make_cache: MakeCache
) -> None:
    plan = make_cache(FAKE.format(arguments="")).plan_of(onnx, LABEL, ModelConfig(), rows=8).path
    profiles = verify_engine(plan)["recipe"]["profiles"]
    assert [each["x"][2] for each in profiles] == [[1, 4], [4, 4], [8, 4]]
    fixed = make_cache(FAKE.format(arguments="outputs=[('y', (1, 2))]"))
    config = ModelConfig(parameters={"shape:x": "1x4:2x4:4x4"})
    plan = fixed.plan_of(onnx, LABEL, config, rows=8).path
    assert [each["x"][2] for each in verify_engine(plan)["recipe"]["profiles"]] == [[4, 4]]


def test_check_is_made_before_a_first_build_alone(onnx: Path, make_cache: MakeCache) -> None:
    cache = make_cache("os.write(int(sys.argv[1]), b'{}')", "tensorrt")
    config = ModelConfig(max_batch_size=8)

    def refuse() -> None:
        raise FailedPreconditionError("TensorRT cannot be used: no adapter")

    with pytest.raises(FailedPreconditionError, match=r"^TensorRT cannot be used: no adapter$"):
        cache.plan_of(onnx, LABEL, config, check=refuse)
    plan = cache.plan_of(onnx, LABEL, config).path
    plan.write_bytes(b"plan")
    assert cache.plan_of(onnx, LABEL, config, check=refuse).path == plan


def test_progress_of_a_build_is_logged(
    onnx: Path, make_cache: MakeCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "penstock.engines")
    make_cache(FAKE.format(arguments="")).plan_of(onnx, LABEL, ModelConfig(max_batch_size=8))
    said = f"{LABEL}: its engine is being built: Building engine, "
    told = [line for line in caplog.messages if line.startswith(said)]
    assert told == [said + "0 of 2", said + "1 of 2", said + "2 of 2"]


def test_process_that_a_child_leaves_behind_is_not_waited_for(
    onnx: Path, make_cache: MakeCache, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = f"""
if os.fork() == 0:
    open({str(fifo)!r}).read()  # it holds the pipe of answers until then
    os._exit(0)
os.write(int(sys.argv[1]), b'{{"error": "first"}}\\n{{"error": "last')
os.write(int(sys.argv[1]), b' word"}}')
os._exit(1)
"""
    try:
        assert refusal(make_cache(program), onnx) == "last word"
    finally:
        fifo.write_text("")


def test_other_batches_are_another_plan_and_other_bytes_are_built_again(
    onnx: Path, make_cache: MakeCache
) -> None:
    cache = make_cache(FAKE.format(arguments=""))
    plan = cache.plan_of(onnx, LABEL, ModelConfig(max_batch_size=8)).path
    assert cache.plan_of(onnx, LABEL, ModelConfig(max_batch_size=4)).path != plan
    key = verify_engine(plan)["key"]
    onnx.write_bytes(b"other onnx")
    assert cache.plan_of(onnx, LABEL, ModelConfig(max_batch_size=8)).path == plan
    assert verify_engine(plan)["key"] != key


def test_open_input_takes_its_shapes_from_a_parameter(onnx: Path, make_cache: MakeCache) -> None:
    cache = make_cache(FAKE.format(arguments="inputs=[('ids', (-1, -1))]"))
    assert "parameter shape:ids=LEAST:LIKELY:GREATEST, as 1:4:8, without" in refusal(cache, onnx)
    config = ModelConfig(max_batch_size=1, parameters={"shape:ids": "16:128:512"})
    sidecar = verify_engine(cache.plan_of(onnx, LABEL, config).path)
    assert sidecar["recipe"]["profiles"][0]["ids"] == [[1, 16], [1, 128], [1, 512]]
    with pytest.raises(ConfigError, match=r"parameters\['shape:ids'\]: expected LEAST"):
        cache.plan_of(onnx, LABEL, ModelConfig(parameters={"shape:ids": "many"}))
    with pytest.raises(ConfigError, match=r"\['shape:ids'\]: expected least <= likely <= great"):
        cache.plan_of(onnx, LABEL, ModelConfig(parameters={"shape:ids": "16:8:512"}))


def test_package_that_is_not_installed_is_named(onnx: Path, make_cache: MakeCache) -> None:
    program = FAKE.format(arguments="").replace("= fake", "= None")
    why = refusal(make_cache(program, "tensorrt"), onnx)
    assert why.startswith("the Python package 'tensorrt' is not installed")


def test_missing_driver_is_named(
    onnx: Path, make_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libcuda.so.1").write_text("this is not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    why = refusal(make_cache(FAKE.format(arguments=""), "tensorrt"), onnx)
    assert why.startswith("there is no CUDA driver on this machine")


def test_what_the_builder_says_is_the_reason(onnx: Path, make_cache: MakeCache) -> None:
    failing = "parse_error=('no such operator', 'Odd', 'node_7')"
    why = refusal(make_cache(FAKE.format(arguments=failing)), onnx)
    assert "node_7" in why


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("os.kill(os.getpid(), signal.SIGABRT)", "the process for it was killed by SIGABRT"),
        ("sys.exit(3)", "the process for it ended with code 3"),
        ("sys.exit(0)", "the process for it ended with code 0"),
        ("os.write(int(sys.argv[1]), b'nonsense')", "the process for it ended with code 0"),
        ("print('x' * 3_000_000); sys.exit(4)", "the process for it ended with code 4"),
    ],
)
def test_end_of_the_child_is_named(
    onnx: Path, make_cache: MakeCache, program: str, expected: str
) -> None:
    assert refusal(make_cache(program), onnx) == expected


def test_build_that_fails_leaves_nothing(onnx: Path, make_cache: MakeCache, tmp_path: Path) -> None:
    refusal(make_cache("sys.exit(3)"), onnx)
    assert list((tmp_path / "cache").iterdir()) == []


def test_build_that_takes_too_long_is_ended(onnx: Path, make_cache: MakeCache) -> None:
    assert refusal(make_cache("signal.pause()", limit_s=1.0), onnx) == (
        "it took longer than 1 s, the most that a load may (--engine-build-timeout-secs): give it "
        "more, or build it before, by penstock build-engine"
    )


def test_child_that_cannot_be_started_is_named(onnx: Path, tmp_path: Path) -> None:
    settings = EngineCacheSettings(tmp_path / "cache", command=(str(tmp_path / "nothing"),))
    why = refusal(EngineCache(settings), onnx)
    assert why == "the process for it does not start: No such file or directory"


def test_child_is_not_told_the_servers_settings(
    onnx: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET", "s3cret")
    program = "sys.exit(5 if 'PENSTOCK_SECRET' in os.environ else 6)"
    assert refusal(make_cache(program), onnx) == "the process for it ended with code 6"


SEES = """
from penstock.engines.visible import VISIBLE_DEVICES
os.write(int(sys.argv[1]), b'{"error": "sees %s"}' % os.environ.get(VISIBLE_DEVICES, "").encode())
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [
        (None, "0", "0"),
        (None, "2", "2"),
        ("4,GPU-b", "1", "GPU-b"),
        ("GPU-b", "GPU-b", "GPU-b"),
        (None, "MIG-5a1c", "MIG-5a1c"),
    ],
)
def test_child_sees_the_device_that_the_model_runs_on(
    onnx: Path,
    make_cache: MakeCache,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    device: str,
    seen: str,
) -> None:
    monkeypatch.delenv(VISIBLE_DEVICES, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE_DEVICES, visible)
    assert refusal(make_cache(SEES, "tensorrt"), onnx, device=device) == f"sees {seen}"


def test_device_that_the_server_does_not_see_is_named(
    onnx: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "4")
    why = refusal(make_cache(SEES, "tensorrt"), onnx, device="1")
    assert why == "there is no GPU 1: 1 are seen (CUDA_VISIBLE_DEVICES)"
    assert not (tmp_path / "cache").exists()


def test_each_device_has_plans_of_its_own(onnx: Path, make_cache: MakeCache) -> None:
    cache = make_cache("os.write(int(sys.argv[1]), b'{}')", "tensorrt")
    plans = [cache.plan_of(onnx, LABEL, ModelConfig(), each).path for each in ("0", "1", "GPU-b")]
    assert len(set(plans)) == 3
    assert cache.plan_of(onnx, LABEL, ModelConfig()).path == plans[0], "the first where none is"


def test_rtx_builds_for_every_device_and_without_one(
    onnx: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "")
    assert refusal(make_cache(SEES), onnx, device="1") == "sees "
    cache = make_cache("os.write(int(sys.argv[1]), b'{}')")
    plans = {cache.plan_of(onnx, LABEL, ModelConfig(), each).path for each in ("0", "1")}
    assert len(plans) == 1


def test_what_built_a_plan_is_told(onnx: Path, make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache(FAKE.format(arguments=""))
    plan = cache.plan_of(onnx, LABEL, ModelConfig(max_batch_size=8)).path
    assert cache.maker_of(plan) == "TensorRT-RTX 11.1.0.106"
    assert cache.maker_of(onnx) is None


def test_child_imports_nothing_from_where_the_server_runs(
    onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    settings = EngineCacheSettings(tmp_path / "cache", flavour="tensorrt_none")
    assert refusal(EngineCache(settings), onnx).startswith("library: expected one of tensorrt, ")


def test_each_library_has_plans_of_its_own(onnx: Path, make_cache: MakeCache) -> None:
    says_yes = "os.write(int(sys.argv[1]), b'{}')"
    caches = [make_cache(says_yes, flavour) for flavour in ("tensorrt", "tensorrt_rtx")]
    one, other = (cache.plan_of(onnx, LABEL, ModelConfig()).path for cache in caches)
    assert one != other


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_full_disk_is_named_and_leaves_nothing_open(
    onnx: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = make_cache("")
    monkeypatch.setattr("penstock.engines.building.tempfile.TemporaryFile", full)
    before = open_descriptors()
    assert refusal(cache, onnx) == "No space left on device"
    assert open_descriptors() == before


def test_child_that_cannot_be_followed_is_ended(
    onnx: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[int] = []

    def too_many(child: int) -> int:
        children.append(child)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("penstock.engines.building.os.pidfd_open", too_many)
    before = open_descriptors()
    assert refusal(make_cache("signal.alarm(60); signal.pause()"), onnx) == "Too many open files"
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)  # it has been waited for


class SlowCommand(tuple[str, ...]):
    """A command that is not had before the test says so: its process is long in starting."""

    asked: threading.Event
    given: threading.Event

    def __iter__(self) -> Iterator[str]:
        self.asked.set()
        self.given.wait()
        return super().__iter__()


def test_close_waits_for_no_start_and_leaves_no_child_of_one(onnx: Path, tmp_path: Path) -> None:
    program = "import signal; signal.pause()"
    command = SlowCommand((sys.executable, "-c", program))
    command.asked, command.given = threading.Event(), threading.Event()
    settings = EngineCacheSettings(tmp_path / "cache", limit_s=30.0, command=command)
    cache = EngineCache(settings)
    with ThreadPoolExecutor() as threads:
        loading = threads.submit(cache.plan_of, onnx, LABEL, ModelConfig())
        command.asked.wait()
        try:
            threads.submit(cache.close).result(timeout=60)
        finally:
            command.given.set()
        with pytest.raises(CancelledError, match="the server is stopping"):
            loading.result()


def test_close_ends_what_is_being_built_and_refuses_what_comes(
    onnx: Path, make_cache: MakeCache, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cache = make_cache(f"open({str(fifo)!r}, 'w').close()\nsignal.pause()")
    errors: list[BaseException] = []

    def load() -> None:
        try:
            cache.plan_of(onnx, LABEL, ModelConfig())
        except CancelledError as error:
            errors.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    fifo.read_text()  # the child runs
    cache.close()
    loading.join()
    assert [str(error) for error in errors] == [f"{LABEL}: the server is stopping"]
    with pytest.raises(CancelledError):
        cache.plan_of(onnx, LABEL, ModelConfig())
