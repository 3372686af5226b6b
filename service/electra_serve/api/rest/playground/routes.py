"""Adds the pages and their files to the application.

They hold no data, so they need no key; the requests of their scripts do. Like probes, they are not counted as requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from electra_serve.api.rest.headers import headers_of
from electra_serve.api.rest.playground.assets import Asset, PageFacts, read_assets
from electra_serve.api.rest.render import Chunks

FOLDER: Final = "/playground"
CHUNK_BYTES: Final = 65_536
"""Bytes of a file that one connection holds at a time, in addition to those in the socket."""

_OWN: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY: Final = f"{_OWN}; img-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
DOCS_POLICY: Final = f"{_OWN}; img-src 'self' data:"  # Swagger UI draws its icons from data URLs
PAGES: Final = {"/": ("index.html", PAGE_POLICY), "/docs": ("docs.html", DOCS_POLICY)}


class PlaygroundEndpoints:
    """Endpoints of the pages and of their files."""

    def __init__(self, assets: Mapping[str, Asset], *, send_timeout_s: float) -> None:
        self._assets = assets
        self._send_timeout_s = send_timeout_s

    async def page(self, request: Request) -> Response:
        """Returns the page of the path."""
        name, policy = PAGES[request.scope["path"]]
        return self._respond(request, self._assets[name], policy)

    async def file(self, name: str, request: Request) -> Response:
        """Returns a file of the pages; raises `HTTPException` 404 for another name."""
        asset = self._assets.get(name)
        if asset is None or name.endswith(".html"):
            raise HTTPException(404)
        return self._respond(request, asset, PAGE_POLICY)

    def _respond(self, request: Request, asset: Asset, policy: str) -> Response:
        headers = {
            "content-security-policy": policy,
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",  # browsers keep files, and ask if they changed
            "etag": asset.etag,
        }
        if matches(headers_of(request.scope).get("if-none-match", ""), asset.etag):
            return Response(status_code=304, headers=headers)
        content = memoryview(asset.content)
        parts = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
        return Chunks(parts, send_timeout_s=self._send_timeout_s, media_type=asset.media_type, headers=headers)


def matches(if_none_match: str, etag: str) -> bool:
    """Compares entity tags as RFC 9110, 13.1.2 has it.

    Example:
        >>> matches('"a", W/"b"', '"b"'), matches("*", '"b"'), matches('"c"', '"b"'), matches("", '"b"')
        (True, True, False, False)
    """
    given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in given or given == ["*"]


def add_playground(app: FastAPI, facts: PageFacts, *, send_timeout_s: float) -> None:
    """Adds `GET /`, `GET /docs` and the files of both."""
    endpoints = PlaygroundEndpoints(read_assets(facts), send_timeout_s=send_timeout_s)
    for path in PAGES:
        app.router.add_api_route(path, endpoints.page, methods=["GET"], include_in_schema=False)
    app.router.add_api_route(f"{FOLDER}/{{name}}", endpoints.file, methods=["GET"], include_in_schema=False)
