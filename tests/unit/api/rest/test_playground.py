"""The pages and their files: headers, sizes and settings."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import structlog
from structlog.testing import LogCapture

from electra_serve import __version__
from electra_serve.api.rest.app import create_app
from electra_serve.api.rest.playground.assets import MEDIA_TYPES, SERVED, STATIC, SWAGGER_UI
from electra_serve.api.rest.playground.routes import CHUNK_BYTES, FOLDER
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.observability.requests import RequestObserver
from electra_serve.settings.schema import ApiSettings, RestSettings
from tests.fakes import transit_budget
from tests.unit.api.rest.asgi import Wire, http_scope
from tests.unit.api.rest.conftest import SETTINGS, Rest, connect

MAX_PAGE_BYTES: Final = 150_000
PAGES: Final = ["/", "/docs"]
OWN: Final = sorted(file.name for file in STATIC.iterdir())
FILES: Final = [f"{FOLDER}/{name}" for name in (*OWN, *SERVED) if not name.endswith(".html")]
OFF: Final = SETTINGS.model_copy(update={"playground": False})


class References(HTMLParser):
    """Collects the URLs of a page, and what its policy would block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.urls += [str(given[name]) for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        executes = given.get("type") != "application/json" and "src" not in given
        self.inline += [tag] if tag == "style" or (tag == "script" and executes) else []


def policy(response: httpx.Response) -> dict[str, list[str]]:
    """Returns the directives of the response's policy."""
    parts = response.headers["content-security-policy"].split("; ")
    return {name: values for name, *values in (part.split(" ") for part in parts)}


@pytest.mark.parametrize("path", [*PAGES, *FILES])
async def test_each_file_has_its_headers(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path, headers={"x-request-id": "order-7"})
    assert response.status_code == 200
    suffix = ".html" if path in PAGES else Path(path).suffix
    assert response.headers["content-type"] == MEDIA_TYPES[suffix]
    assert response.headers["x-request-id"] == "order-7"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers.get_list("cache-control") == ["no-cache"]
    assert int(response.headers["content-length"]) == len(response.content)
    assert (
        policy(response).items()
        >= {
            "default-src": ["'none'"],
            "script-src": ["'self'"],
            "style-src": ["'self'"],
            "connect-src": ["'self'"],
            "base-uri": ["'none'"],
            "form-action": ["'none'"],
            "frame-ancestors": ["'none'"],
        }.items()
    )


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_nothing_that_its_policy_blocks(client: httpx.AsyncClient, path: str) -> None:
    found = References((await client.get(path)).text)
    assert found.inline == []
    for url in found.urls:
        assert (await client.get(f"/{url}")).status_code == 200


@pytest.mark.parametrize("path", [*PAGES, FILES[0]])
async def test_an_unchanged_file_is_not_sent_again(client: httpx.AsyncClient, path: str) -> None:
    first = await client.get(path)
    etag = first.headers["etag"]
    for candidate in (etag, f'"other", W/{etag}', "*"):
        again = await client.get(path, headers={"if-none-match": candidate})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert policy(again) == policy(first)
    assert (await client.get(path, headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize("path", [*PAGES, FILES[0]])
async def test_head_has_the_headers_of_get(client: httpx.AsyncClient, path: str) -> None:
    get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) | {"x-request-id": ""} == dict(get.headers) | {"x-request-id": ""}


def test_the_page_is_small() -> None:
    assert sum(file.stat().st_size for file in STATIC.iterdir()) <= MAX_PAGE_BYTES


@pytest.mark.parametrize("name", OWN)
def test_no_file_of_ours_names_another_host(name: str) -> None:
    text = (STATIC / name).read_text()
    namespace = "http://www.w3.org/2000/svg"
    assert [url for url in re.findall(r"https?://[a-z0-9.]+[^\s\"'`]*", text) if url != namespace] == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|cookie", text)


def test_vendored_files_are_those_of_npm() -> None:
    record = json.loads((SWAGGER_UI / "vendored.json").read_text())
    assert {file.name for file in SWAGGER_UI.iterdir()} == {*record["files"], "vendored.json"}
    for name, digest in record["files"].items():
        assert sha256((SWAGGER_UI / name).read_bytes()).hexdigest() == digest, name
    assert {"LICENSE", "NOTICE", *SERVED} <= record["files"].keys()


@pytest.mark.parametrize(("playground", "tei"), list(product([True, False], [True, False])))
async def test_get_and_post_of_the_root_are_independent(rest: Rest, playground: bool, tei: bool) -> None:
    settings = SETTINGS.model_copy(update={"playground": playground})
    async with connect(rest.app(settings, apis=ApiSettings(tei=tei))) as client:
        methods = {"GET": playground, "HEAD": playground, "POST": tei}
        for method, served in methods.items():
            response = await client.request(method, "/", json={"inputs": "a"} if method == "POST" else None)
            rejected = 405 if playground or tei else 404
            assert response.status_code == (200 if served else rejected), method
            if response.status_code == 405:
                allowed = [name for name, is_served in methods.items() if is_served]
                assert response.headers["allow"] == ", ".join(sorted(allowed))
        assert ("/" in (await client.get("/openapi.json")).json()["paths"]) == tei


@pytest.mark.parametrize("path", ["/docs", f"{FOLDER}/app.js", f"{FOLDER}/swagger-ui.css"])
async def test_without_the_setting_there_are_no_pages(rest: Rest, path: str) -> None:
    async with connect(rest.app(OFF)) as client:
        response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name", ["", "index.html", "docs.html", "unknown.js", "vendored.json", "LICENSE", "%2e%2e%2fassets.py", "a/b"]
)
async def test_other_files_are_problems(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"{FOLDER}/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/docs", FILES[0]])
async def test_other_methods_are_problems(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json={})
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


async def test_pages_are_neither_counted_nor_logged(client: httpx.AsyncClient, rest: Rest) -> None:
    before = rest.metrics.exposition()[0]
    for path in [*PAGES, *FILES]:
        await client.get(path)

    def counted(exposition: bytes) -> list[bytes]:
        return [line for line in exposition.splitlines() if line.startswith(b"electra_request")]

    assert counted(rest.metrics.exposition()[0]) == counted(before)
    assert (rest.log.calls, rest.in_flight) == ([], 0)


async def test_pages_need_no_key_and_are_served_while_nothing_is_ready(rest: Rest, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("shop-0123456789abcdef")
    rest.service.ready = False
    keys = Authenticator(KeyRing(tmp_path / "keys", structlog.wrap_logger(None, [LogCapture()])))
    async with connect(rest.app(authenticator=keys)) as client:
        for path in [*PAGES, *FILES]:
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401
        assert facts_of(await client.get("/"))["keyed"] is True


def facts_of(page: httpx.Response) -> dict[str, Any]:
    """Returns the facts that the service wrote into the page."""
    (written,) = re.findall(r'<script id="facts" type="application/json">(.*)</script>', page.text)
    facts: dict[str, Any] = json.loads(written)
    return facts


@pytest.mark.parametrize("on", [True, False])
async def test_the_page_knows_the_settings(rest: Rest, on: bool) -> None:
    app = create_app(
        rest.service,
        RestSettings(),
        rest.metrics if on else None,
        RequestObserver("rest", rest.metrics, rest.log),
        max_sequences=8,
        budget=transit_budget(),
        apis=ApiSettings(openai=on, rerank=on),
        grpc_port=50051,
    )
    async with connect(app) as client:
        facts = facts_of(await client.get("/"))
    expected = {"metrics": on, "keyed": False, "openai": on, "rerank": on}
    assert facts == {"version": __version__, "grpc_port": 50051, **expected}


async def test_a_large_file_is_sent_in_parts(rest: Rest) -> None:
    wire = Wire()
    await wire.run(rest.app(), http_scope(f"{FOLDER}/swagger-ui-bundle.js"))
    parts = [message["body"] for message in wire.sent if message["type"] == "http.response.body"]
    assert max(map(len, parts)) == CHUNK_BYTES
    assert b"".join(parts) == (SWAGGER_UI / "swagger-ui-bundle.js").read_bytes()
