"""Chromium, and two processes: one with every kind of head, and a closed one with keys and without other APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.heads import HeadConfig
from tests.contract.heads import HEADS, preset_with
from tests.integration.process import READY_S, ServiceProcess, free_port, start
from tests.waiting import wait_until
from tools.browser import Browser, Page, available, browser

KEY: Final = "shop-0123456789abcdef"
HOSTILE: Final = '"><img src=x onerror="window.hit = 1">\u202ex'
"""A label with markup, and with a mark that turns the direction of the text behind it."""
MODELS: Final = {
    "ranker": HeadConfig("sequence_classification", ("relevant",), "none"),
    "sentiment": HEADS["sequences, ELECTRA's"],
    "names": replace(HEADS["tokens"], labels=("O", "B", "I", HOSTILE)),
    "questions": HEADS["questions"],
    "detector": HEADS["replaced tokens"],
}
OFFLINE: Final = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""No name is resolved, so that a request that leaves this machine fails."""
REJECTED: Final = "Failed to load resource: the server responded with a status of "
"""Line that Chromium itself logs for each rejected request."""


@dataclass(frozen=True, slots=True)
class Site:
    """A process, and the headers that its clients need."""

    process: ServiceProcess
    headers: dict[str, str]

    @property
    def url(self) -> str:
        return f"{self.process.url}/"

    def post(self, path: str, body: object) -> httpx.Response:
        """Sends a request as other clients do."""
        return httpx.post(f"{self.process.url}{path}", json=body, headers=self.headers, timeout=60)

    def result(self, path: str, **body: object) -> Any:
        """Returns the response to a request that succeeds."""
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An open process with several models."""
    folder = tmp_path_factory.mktemp("site")
    for name, head in MODELS.items():
        preset_with(head, folder / name)
    flags = _flags(DEMO_ID, *(folder / name for name in MODELS))
    with start(folder, *flags) as process:
        wait_until(lambda: process.status("/readyz") == 200, READY_S * len(MODELS))
        yield Site(process, {})


def _flags(*presets: str | Path) -> list[str]:
    """Returns flags for models that load fast: of one engine each, with few shapes."""
    models = [json.dumps({"preset": str(preset), "replicas": 1, "threads": 1}) for preset in presets]
    return [*(f"--models={model}" for model in models), "--batching.max_batch_tokens=512", "--log.format=json"]


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A process with keys, metrics on another port, and its own API only."""
    folder: Path = tmp_path_factory.mktemp("closed")
    preset_with(MODELS["ranker"], folder / "ranker")
    (folder / "keys").write_text(f"shop:{KEY}\n")
    flags = _flags(DEMO_ID, folder / "ranker")
    flags += [f"--apis.{name}=false" for name in ("openai", "rerank", "tei")]
    flags += [f"--metrics.port={free_port()}", f"--security.api_keys_file={folder / 'keys'}"]
    with start(folder, *flags) as process:
        process.wait_ready()
        yield Site(process, {"authorization": f"Bearer {KEY}"})


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    if not available():
        pytest.skip("chromium is not installed: apt-get install chromium")
    with browser(OFFLINE) as started:
        yield started


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty tab of a desktop; at the end, nothing but rejected requests may be in its console."""
    with chromium.page() as opened:
        opened.resize(1280, 900)
        yield opened
        assert [error for error in opened.errors if not error.startswith(REJECTED)] == []
        own = ("http://127.0.0.1:", "data:image/svg+xml")
        assert [url for url in opened.requests if not url.startswith(own)] == []


def panel(page: Page) -> str:
    """Returns a selector of the panel that is shown."""
    chosen: str = page.run("document.querySelector('[data-tab][aria-selected=true]').getAttribute('aria-controls')")
    return f"#{chosen}"


def choose(page: Page, model: str) -> None:
    """Chooses a model in the picker."""
    page.run(
        f"(() => {{ const e = document.querySelector('#model'); e.value = {model!r};"
        "e.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def open_view(page: Page, site: Site, view: str, model: str = DEMO_ID) -> str:
    """Opens the page at a view with a model, and returns the selector of its panel."""
    page.open("about:blank")  # otherwise only the fragment may change
    page.open(f"{site.url}#{view}")
    page.wait("document.querySelector('#model').options.length > 0")
    choose(page, model)
    return panel(page)


def submit(page: Page, where: str, result: str) -> None:
    """Presses the view's button, and waits for elements of a result or a problem."""
    page.run(f"document.querySelector('{where} .result').replaceChildren()")
    page.click(f"{where} button.primary")
    page.wait(f"document.querySelector('{where} {result}') && !document.querySelector('{where} [aria-busy=true]')")


def values(page: Page, selector: str) -> list[float]:
    """Returns the exact values of the numbers below an element, in order."""
    found: list[str] = page.run(f"[...document.querySelectorAll('{selector} data')].map((e) => e.value)")
    return [float(value) for value in found]


def texts(page: Page, selector: str) -> list[str]:
    """Returns the texts of all elements."""
    found: list[str] = page.run(f"[...document.querySelectorAll('{selector}')].map((e) => e.textContent)")
    return found
