"""The table of peers: from raw records to Markdown and SVG, and how requests are made."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import cli, load, plot, table
from peers.load import Point
from peers.peer import Peer
from peers.protocols import OpenInferenceGrpc, OpenInferenceHttp, RawHttp
from peers.run import Contestant, Run, parse_h2load
from peers.serving import PeerFailure, install, is_right
from peers.workload import Workload
from tritonclient.grpc import service_pb2

WORK = Workload(
    name="digits",
    model=Path("digits.onnx"),
    input="X",
    output="probabilities",
    rows=np.zeros((2, 64), np.float32),
    answers=np.zeros((2, 10), np.float32),
    threads=1,
    batch=64,
    concurrency=(1, 64),
    rates=(200,),
    tolerance=1e-4,
)
PEERS = {peer.name: peer for peer in cli.peers(["penstock", "mosec", "litserve"])}


def point(peer: str, route: str, name: str, rate: float, **more: Any) -> dict[str, Any]:
    record = {"work": "digits", "peer": peer, "variant": "", "route": route, "point": name}
    figures = {"rate": rate, "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us": 1e6 / rate, "sent": 1_000}
    return record | figures | more


def results(*points: dict[str, Any], **more: Any) -> dict[str, Any]:
    box = {"processor": "P", "cores": "2", "memory": "1 GiB", "system": "Linux", "penstock": "0"}
    found = {
        "machine": box | {"load before the run": "0.10"},
        "command": "make bench-peers",
        "settings": {"rounds": 3, "seconds": 2.0},
        "took_s": 60.0,
        "is_whole": True,
        "points": list(points),
        "starts": [],
        "failures": [],
        "skipped": {},
    }
    return found | more


def test_row_of_a_peer_that_is_quicker_says_where_and_why() -> None:
    found = results(
        point("penstock", "HTTP", "c64", 100),
        point("mosec", "HTTP", "c64", 300, variant="batches of 64, 1 ms"),
        point("mosec", "HTTP", "c64", 500, variant="no batches"),
    )
    text = table.render(found, PEERS)
    row = next(line for line in text.splitlines() if line.startswith("| mosec"))
    assert "500 (500..500)" in row and "[c]" in row
    assert f"**wins** at 64 in flight: {PEERS['mosec'].wins['HTTP']}" in row


def test_lead_within_the_spread_is_no_win() -> None:
    found = results(
        *(point("penstock", "HTTP", "c64", rate) for rate in (90, 100, 120)),
        *(point("mosec", "HTTP", "c64", rate, variant="no batches") for rate in (95, 110, 130)),
    )
    text = table.render(found, PEERS)
    assert "ahead within the spread at 64 in flight" in text and "wins" not in text


def test_routes_are_not_compared_with_each_other() -> None:
    found = results(
        point("penstock", "gRPC", "c64", 100),
        point("penstock", "HTTP", "c64", 50),
        point("litserve", "HTTP", "c64", 40, variant="no batches"),
    )
    assert "wins" not in table.render(found, PEERS)


def test_cell_has_the_median_and_the_spread_of_its_rounds() -> None:
    found = results(*(point("penstock", "gRPC", "c1", rate) for rate in (300, 100, 200)))
    assert "| penstock | gRPC | 200 (100..300), p50 1 ms, p99 2 ms |" in table.render(found, PEERS)


def test_rate_over_what_a_server_can_do_is_told_and_never_wins() -> None:
    saturated = point("mosec", "HTTP", "r200", 1) | {"saturated_at": 150.0, "variant": "no batches"}
    found = results(
        point("penstock", "HTTP", "c64", 100),
        point("penstock", "HTTP", "r200", 200),
        point("mosec", "HTTP", "c64", 99, variant="no batches"),
        {key: saturated[key] for key in saturated if not key.endswith("_ms")},
    )
    text = table.render(found, PEERS)
    assert "cannot" in text and "wins" not in text


def test_one_round_over_what_a_server_can_do_decides_nothing() -> None:
    slow = point("penstock", "HTTP", "r200", 1) | {"saturated_at": 150.0}
    found = results(
        *(point(peer, "HTTP", "c64", 100) for peer in ("penstock", "mosec")),
        {key: slow[key] for key in slow if not key.endswith("_ms")},
        *(point("penstock", "HTTP", "r200", 200) for _ in range(2)),
        *(point("mosec", "HTTP", "r200", 200) | {"p99_ms": 1} for _ in range(3)),
    )
    text = table.render(found, PEERS)
    assert "cannot" not in text and "wins" not in text
    assert "ahead within the spread at 200/s" in text


def test_row_without_a_point_keeps_its_columns() -> None:
    found = results(
        point("penstock", "HTTP", "c64", 100),
        *(point("litserve", "HTTP", place, 40, variant="no batches") for place in ("c1", "c64")),
    )
    text = table.render(found, PEERS)
    assert "| server | by | 1 in flight | 64 in flight |" in text
    assert "| penstock | HTTP | - | 100 (100..100)" in text


def test_reason_that_nobody_wrote_is_said_to_be_unknown() -> None:
    found = results(
        point("penstock", "HTTP", "c1", 1), point("litserve", "HTTP", "c1", 2, variant="no batches")
    )
    assert "**wins** at 1 in flight: why is not known" in table.render(found, PEERS)


def test_failures_and_skipped_peers_are_listed_with_the_reason() -> None:
    failure = {"work": "digits", "peer": "mosec", "variant": "no batches", "why": "status 500"}
    found = results(failures=[failure, failure], skipped={"torchserve": "java is not installed"})
    text = table.render(found, PEERS)
    assert "- torchserve was skipped: java is not installed" in text
    assert "- mosec, no batches, digits: status 500 (2 x)" in text


def test_start_and_memory_are_compared_too() -> None:
    start = {"work": "digits", "variant": "", "idle_mb": 50.0, "loaded_mb": 60.0, "ready_s": 1.0}
    quicker = start | {"peer": "mosec", "variant": "batches of 16, 1 ms", "ready_s": 0.5}
    text = table.render(results(starts=[start | {"peer": "penstock"}, quicker]), PEERS)
    assert "| mosec | 0.5 (0.5..0.5) | 50 | 60 | **wins** on start: why is not known |" in text


def test_table_of_an_interrupted_run_says_so() -> None:
    assert "Interrupted" not in table.render(results(), PEERS)
    assert table.render(results(is_whole=False), PEERS).startswith("**Interrupted")


def test_readme_keeps_what_is_around_the_marks() -> None:
    readme = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    placed = table.place(readme, "new\n")
    assert placed.startswith("before\n") and placed.endswith("after\n")
    assert "new" in placed and "old" not in placed
    with pytest.raises(ValueError, match="lacks"):
        table.place("nothing", "new")


def test_readme_in_the_tree_has_the_marks() -> None:
    assert table.place(cli.README.read_text(), "x\n")


def test_plot_is_svg_with_a_dot_for_each_row_and_figure() -> None:
    found = results(point("penstock", "gRPC", "c64", 100), point("mosec", "HTTP", "c64", 5))
    root = ElementTree.fromstring(plot.render(found))
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 4
    ElementTree.fromstring(plot.render(results()))


def test_grpc_request_and_answer_carry_raw_contents() -> None:
    row = np.arange(64, dtype=np.float32)
    message = service_pb2.ModelInferRequest.FromString(OpenInferenceGrpc().encode(WORK, row).body)
    assert message.model_name == "digits" and message.raw_input_contents[0] == row.tobytes()
    raw = service_pb2.ModelInferResponse(raw_output_contents=[row.tobytes()])
    assert np.array_equal(OpenInferenceGrpc().decode({}, raw.SerializeToString()), row)
    typed = service_pb2.ModelInferResponse()
    typed.outputs.add(name="y").contents.fp32_contents.extend(row.tolist())
    assert np.array_equal(OpenInferenceGrpc().decode({}, typed.SerializeToString()), row)


@pytest.mark.parametrize("binary", [True, False])
def test_http_request_carries_the_row(binary: bool) -> None:
    row = np.arange(64, dtype=np.float32)
    made = OpenInferenceHttp(binary=binary).encode(WORK, row)
    head = int(made.headers.get("Inference-Header-Content-Length", len(made.body)))
    text = json.loads(made.body[:head])
    assert made.path == "/v2/models/digits/infer"
    if binary:
        assert made.body[head:] == row.tobytes()
    else:
        assert text["inputs"][0]["data"] == row.tolist()


def test_http_answers_are_read_in_either_form() -> None:
    values = np.arange(3, dtype=np.float32)
    text = b'{"outputs": []}'
    headers = {"inference-header-content-length": str(len(text))}
    http = OpenInferenceHttp()
    assert np.array_equal(http.decode(headers, text + values.tobytes()), values)
    body = json.dumps({"outputs": [{"data": values.tolist()}]}).encode()
    assert np.array_equal(http.decode({}, body), values)
    assert np.array_equal(RawHttp("/").decode({}, values.tobytes()), values)


def test_answer_of_another_shape_or_value_is_wrong() -> None:
    right = np.ones(3, np.float32)
    assert is_right(right + np.float32(1e-5), right, 1e-4)
    assert not is_right(right + np.float32(1e-3), right, 1e-4)
    assert not is_right(right[:2], right, 1e-4)


def test_h2load_is_believed_only_if_every_status_was_2xx() -> None:
    output = "finished in 1.5s, {} req/s, 1MB/s\nstatus codes: {} 2xx, 0 3xx, 1 4xx, 0 5xx\n"
    assert parse_h2load(output.format("1234.50", 10), 10) == 1234.5
    with pytest.raises(RuntimeError, match="did not have all its answers"):
        parse_h2load(output.format("1234.50", 9), 10)


def test_failure_of_a_load_is_told_with_kind_count_and_text() -> None:
    report = {"sent": 10, "failures": {"UNAVAILABLE": {"count": 2, "first": "full"}}}
    report["ended_early"] = ""
    assert load.first_failure(report) == "2 of 10 requests: UNAVAILABLE: full"
    assert load.first_failure(report | {"failures": {}, "ended_early": "gone"}).endswith("gone")


def test_points_are_read_from_their_names() -> None:
    assert Point.parse("c64") == Point(64) and Point.parse("r200") == Point(0, 200)
    assert WORK.points() == ["c1", "c64", "r200"]


@pytest.mark.parametrize("name", ["penstock", "mosec"])
def test_images_have_settings_of_their_own(name: str) -> None:
    peer = PEERS[name]
    images = Workload(**{**vars(WORK), "name": "resnet50"})
    order = Run([peer], [WORK, images], 1, 0.1).contestants()
    assert [each.variant for each in order if each.work is WORK] == list(peer.variants)
    own = [Contestant(peer, variant, images) for variant in peer.image_variants]
    assert [each for each in order if each.work is images] == own


def test_whoever_batches_images_may_wait_as_long_as_the_others() -> None:
    for peer in cli.peers(list(cli.NAMES)):
        waits = {each.get("wait_ms") for each in peer.image_variants.values()}
        assert {1, 20} <= waits or len(peer.image_variants) == 1, peer.name


def test_p99_of_few_answers_is_not_shown() -> None:
    enough = [point("penstock", "HTTP", "c64", 100, sent=table.P99_SAMPLES)] * 2
    few = point("penstock", "HTTP", "c64", 100, sent=table.P99_SAMPLES - 1)
    assert "p50 1 ms, p99 2 ms" in table.render(results(*enough), PEERS)
    assert "p50 1 ms, p99 - |" in table.render(results(*enough, few), PEERS)


def test_nothing_is_published_of_a_tree_with_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    monkeypatch.setattr(cli, "README", readme)
    monkeypatch.setattr("peers.cli.machine.revision", lambda: "1234567-dirty")
    monkeypatch.setattr("peers.cli.measure", lambda _: pytest.fail("it was measured"))
    monkeypatch.setattr("sys.argv", ["peers", "--publish"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "1234567-dirty has changes that are not committed" in capsys.readouterr().err
    output = tmp_path / "results.json"
    found = results()
    found["machine"]["penstock"] = "0.1.0 (1234567-dirty)"
    output.write_text(json.dumps(found))
    flags = ["peers", "--publish", "--table-only", "--output", str(output)]
    monkeypatch.setattr("sys.argv", flags)
    with pytest.raises(SystemExit):
        cli.main()
    assert not readme.exists()


def test_peer_whose_program_is_missing_cannot_be_installed() -> None:
    class Missing(type(PEERS["mosec"])):  # type: ignore[misc]
        programs = ("no-such-program",)

    with pytest.raises(PeerFailure, match="no-such-program is not installed"):
        install(Missing())


@pytest.mark.parametrize("peer", cli.peers(list(cli.NAMES)), ids=lambda peer: str(peer.name))
def test_every_peer_pins_its_packages_and_says_how_it_is_set(peer: Peer) -> None:
    assert all("==" in package for package in peer.packages)
    assert peer.notes and peer.variants
    assert set(peer.wins) <= {"gRPC", "HTTP", "start", "memory"}


def test_command_in_the_table_is_one_to_type() -> None:
    assert cli.command([]) == "make bench-peers"
    assert cli.command(["--publish", "--rounds", "5"]) == "make bench-peers ARGS='--rounds 5'"
