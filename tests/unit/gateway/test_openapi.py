"""The OpenAPI document: it has every route, no other, and it and its page need nothing else."""

import re

import pytest
from tests.support.asgi import ask_asgi
from tests.support.fake_upstream import FakeUpstream

from penstock_gateway.app import Gateway
from penstock_gateway.openapi import document
from penstock_gateway.options import Options

UNDOCUMENTED = {"/docs", "/openapi.json"}
UNDOCUMENTED |= {  # the same with the name of a repository, of which there is one
    f"/v2/repository/{{repository}}{end}"
    for end in ("/index", "/models/{model}/load", "/models/{model}/unload")
}


def served() -> set[tuple[str, str]]:
    gateway = Gateway(FakeUpstream(), Options())
    return {
        (verb.lower(), route.path)
        for route in gateway.routes
        for verb in (route.methods or set()) - {"HEAD"}
        if route.path not in UNDOCUMENTED
    }


def documented() -> set[tuple[str, str]]:
    return {
        (verb, path)
        for path, item in document()["paths"].items()
        for verb in item
        if verb != "parameters"
    }


def test_every_route_is_documented_and_nothing_else() -> None:
    assert served() == documented()


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
async def test_page_and_document_are_served_unless_switched_off(path: str) -> None:
    reply = await ask_asgi(Gateway(FakeUpstream(), Options()), "GET", path)
    assert reply.status == 200
    off = await ask_asgi(Gateway(FakeUpstream(), Options(has_docs=False)), "GET", path)
    assert off.status == 404


async def test_document_is_what_is_served() -> None:
    reply = await ask_asgi(Gateway(FakeUpstream(), Options()), "GET", "/openapi.json")
    assert reply.json == document()


async def test_page_asks_nobody_else() -> None:
    reply = await ask_asgi(Gateway(FakeUpstream(), Options()), "GET", "/docs")
    page = reply.body.decode()
    assert re.findall(r"(?:https?:)?//[a-z0-9]", page) == []
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
