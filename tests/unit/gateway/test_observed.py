"""What is counted and logged of HTTP requests, around an application."""

import re
from typing import Any

import pytest
from tests.support.asgi import ask_asgi
from tests.support.fake_upstream import FakeUpstream

from penstock.frontend.http import ROUTE, health_routes
from penstock.frontend.readiness import Readiness
from penstock.gateway.fleet_metrics import render_fleet
from penstock.gateway.observed import HttpCounters, Observed, refusals
from penstock.observe.access import Access
from penstock_gateway import protocol
from penstock_gateway.app import Gateway
from penstock_gateway.options import Options
from penstock_gateway.pool import Pool, PoolOptions, Replica


class Lines:
    """An access log that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Access] = []

    def write(self, access: Access) -> None:
        self.told.append(access)


def counted(counters: HttpCounters) -> dict[tuple[str, str], float]:
    requests, _ = counters.families()
    return {(labels["route"], labels["code"]): value for _, labels, value in requests.samples}


def test_server_and_gateway_mean_the_same_key() -> None:
    assert protocol.ROUTE == ROUTE


async def test_requests_count_by_route_and_status_not_by_path() -> None:
    counters, lines = HttpCounters(), Lines()
    observed = Observed(Gateway(FakeUpstream(), Options()), counters, lines)  # type: ignore[arg-type]
    for name in ("a", "b"):
        await ask_asgi(observed, "POST", f"/v2/models/{name}/infer", b"no JSON")
    await ask_asgi(observed, "GET", "/v2/health/live")
    await ask_asgi(observed, "GET", "/who/knows")
    assert counted(counters) == {
        ("/v2/models/{model}/infer", "400"): 2,
        ("/v2/health/live", "200"): 1,
        ("other", "404"): 1,
    }
    assert counters.inflight == 0
    assert [each.model for each in lines.told] == ["a", "b", "", ""]
    assert lines.told[0].method == "POST /v2/models/a/infer"
    assert lines.told[0].received_bytes == len(b"no JSON") and lines.told[0].sent_bytes > 0


async def test_probes_of_a_server_count_by_their_route() -> None:
    counters = HttpCounters()
    await ask_asgi(
        Observed(health_routes(Readiness(lambda: True)), counters), "GET", "/v2/health/live"
    )
    assert counted(counters) == {("/v2/health/live", "200"): 1}


async def test_application_that_raises_is_counted_and_no_longer_under_way() -> None:
    async def raises(*_: Any) -> None:
        assert counters.inflight == 1
        raise ConnectionError

    counters = HttpCounters()
    with pytest.raises(ConnectionError):
        await ask_asgi(Observed(raises, counters), "GET", "/x")
    assert counted(counters) == {("other", "500"): 1}, "what uvicorn answers"
    assert counters.inflight == 0


def test_what_the_protocol_refuses_is_counted_and_logged_without_a_route() -> None:
    counters, lines = HttpCounters(), Lines()
    refusals(counters, lines)(431, ("::1", 7), 12, 0.0025)  # type: ignore[arg-type]
    assert counted(counters) == {("unread", "431"): 1}
    assert lines.told == [
        Access("unread", "431", duration_ms=2.5, sent_bytes=12, peer="ipv6:%5B::1%5D:7")
    ]


async def test_answer_that_went_past_the_application_is_the_request_s() -> None:
    async def left(scope: Any, _receive: Any, _send: Any) -> None:
        scope[protocol.REFUSED] = (408, 20)

    counters, lines = HttpCounters(), Lines()
    observed = Observed(left, counters, lines)  # type: ignore[arg-type]
    await observed(
        {"type": "http", "method": "POST", "path": "/x", "headers": []}, never_called, never_called
    )
    assert counted(counters) == {("other", "408"): 1}
    (line,) = lines.told
    assert (line.status, line.sent_bytes) == ("408", 20)


async def never_called(*_: Any) -> Any:
    raise AssertionError


def test_fleet_shows_its_servers() -> None:
    replicas = [Replica("a:1", None), Replica("b:1", None, is_reachable=True, is_ready=True)]  # type: ignore[arg-type]
    replicas[1].outstanding = 3
    pool = Pool(replicas, PoolOptions())
    pool.retries = 2
    text = render_fleet(pool, HttpCounters(), lambda: 5)[1].decode()
    found = dict(re.findall(r"^(penstock_\w+(?:\{.*\})?) (\d+)$", text, re.MULTILINE))
    assert found['penstock_gateway_upstream_up{upstream="a:1"}'] == "0"
    assert found['penstock_gateway_upstream_ready{upstream="b:1"}'] == "1"
    assert found['penstock_gateway_upstream_inflight_requests{upstream="b:1"}'] == "3"
    assert found["penstock_gateway_retries_total"] == "2"
    assert found["penstock_access_log_dropped_total"] == "5"
    assert found["penstock_gateway_usable_servers"] == "1"
