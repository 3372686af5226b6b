"""The API reference: it works without a network, with and without keys."""

from __future__ import annotations

from typing import Final

from tests.integration.browser.conftest import KEY, REJECTED, Site, texts
from tests.integration.process import ServiceProcess
from tools.browser import Page

MODELS: Final = "#operations-models-list_models"
TOKENIZE: Final = "#operations-tokenize-tokenize"


def open_reference(page: Page, site: Site) -> None:
    page.open(f"{site.url}docs")
    page.wait(f"document.querySelector('{MODELS}') !== null")


def try_out(page: Page, operation: str) -> str:
    """Expands an operation, sends its example, and returns the status of the response."""
    if page.run(f"document.querySelector('{operation} .execute') === null"):
        page.click(f"{operation} .opblock-summary-control")
        page.wait(f"document.querySelector('{operation} .try-out__btn') !== null")
        page.click(f"{operation} .try-out__btn")
        page.wait(f"document.querySelector('{operation} .execute') !== null")
    page.click(f"{operation} .execute")
    page.wait(f"document.querySelector('{operation} .live-responses-table') !== null")
    return page.text(f"{operation} .live-responses-table tbody .response-col_status").split()[0]


def test_every_operation_is_listed(page: Page, site: Site) -> None:
    open_reference(page, site)
    document = site.process.url + "/openapi.json"
    count = page.run(
        f"fetch('{document}').then((r) => r.json())"
        ".then((d) => Object.values(d.paths).flatMap((item) => Object.keys(item)).length)"
    )
    assert len(texts(page, ".opblock-summary-path")) == count
    assert page.errors == []


def test_an_operation_can_be_tried(page: Page, service: ServiceProcess) -> None:
    open_reference(page, Site(service, {}))
    assert try_out(page, TOKENIZE) == "200"
    shown = page.text(f"{TOKENIZE} .live-responses-table")
    assert '"piece": "[CLS]"' in shown
    assert "x-request-id" in shown
    assert page.errors == []


def test_a_key_is_sent_and_kept_in_memory_only(page: Page, closed: Site) -> None:
    open_reference(page, closed)
    assert try_out(page, MODELS) == "401"
    page.click(".auth-wrapper .authorize")
    page.wait("document.querySelector('.modal-ux input') !== null")
    page.fill(".modal-ux input", KEY)
    page.click(".modal-ux .auth-btn-wrapper .authorize")
    page.click(".modal-ux .close-modal")
    page.click(f"{MODELS} .btn-clear")
    page.wait(f"document.querySelector('{MODELS} .live-responses-table') === null")
    assert try_out(page, MODELS) == "200"
    assert (
        page.run("Object.values(localStorage).concat(Object.values(sessionStorage)).join().includes('shop-')") is False
    )
    assert all(error.startswith(f"{REJECTED}401") for error in page.errors)
