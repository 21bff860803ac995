"""/openapi.json and /docs, a page that shows it and tries it; everything comes from here."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from penstock_gateway import jsons
from penstock_gateway.openapi import document

__all__ = ["routes"]

_PAGE = Path(__file__).parent / "docs.html"
_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def routes() -> list[Route]:
    """The two; neither needs credentials, for they say what is in the documentation anyway."""
    page, openapi = _PAGE.read_bytes(), jsons.dumps(document())

    async def show_page(_request: Request) -> Response:
        headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
        return Response(page, headers=headers, media_type="text/html")

    async def show_openapi(_request: Request) -> Response:
        return Response(openapi, media_type="application/json")

    return [Route("/docs", show_page), Route("/openapi.json", show_openapi)]
