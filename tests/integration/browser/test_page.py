"""The page itself: keys, policy, settings, keyboard and small screens."""

from __future__ import annotations

from typing import Final

import pytest

from electra_serve.presets.catalog import DEMO_ID
from tests.integration.browser.conftest import KEY, REJECTED, Site, open_view, panel, submit, texts, values
from tests.integration.browser.test_views import QUERY, TEXTS
from tools.browser import CONTROL, SHIFT, Page

TABS: Final = ["similarity", "search", "tokens", "classify", "rerank", "live"]
WRONG: Final = "shop-fedcba9876543210"


def enter_key(page: Page, key: str) -> None:
    page.wait("document.querySelector('#key-dialog').open")
    page.fill("#key", key)
    page.press("Enter")


def unlock(page: Page, closed: Site, view: str = "similarity") -> str:
    """Opens the page and enters the key."""
    page.open(f"{closed.url}#{view}")
    enter_key(page, KEY)
    page.wait("document.querySelector('#model').options.length > 0")
    return panel(page)


def test_a_key_is_asked_for_and_kept_in_memory_only(page: Page, closed: Site) -> None:
    page.open(closed.url)
    page.wait("document.querySelector('#key-dialog').open")
    detail = closed.post("/v1/encode", {}).request  # as other clients, with the key
    assert detail.headers["authorization"] == f"Bearer {KEY}"
    assert page.text("#key-reason") == _rejection(closed)
    enter_key(page, WRONG)
    page.wait(f"document.querySelector('#key-reason').textContent.includes('{'unknown'}')")
    enter_key(page, KEY)
    page.wait("document.querySelector('.heat') !== null")
    sent = [event["request"]["headers"] for event in page.events("Network.requestWillBeSent")]
    assert [headers["x-api-key"] for headers in sent if "x-api-key" in headers][-1] == KEY
    assert page.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    assert KEY not in page.run("document.documentElement.outerHTML")
    assert not any(KEY in url for url in page.requests)
    page.open("about:blank")
    page.open(closed.url)
    page.wait("document.querySelector('#key-dialog').open")


def _rejection(closed: Site) -> str:
    detail: str = Site(closed.process, {}).post("/v1/encode", {"text": "a"}).json()["detail"]
    return detail


def test_without_a_key_the_problem_is_the_api_s(page: Page, closed: Site) -> None:
    page.open(closed.url)
    page.wait("document.querySelector('#key-dialog').open")
    page.press("Escape")
    page.wait("document.querySelector('#page-error .detail') !== null")
    assert page.text("#page-error .detail") == _rejection(closed)
    assert texts(page, "#page-error dd")[0] == "unauthenticated"
    page.click("#key-button")
    enter_key(page, KEY)
    page.wait("document.querySelector('.heat') !== null")
    assert texts(page, "#page-error .error") == []
    assert all(error.startswith(f"{REJECTED}401") for error in page.errors)


def test_views_without_models_ask_for_the_key_again(page: Page, closed: Site) -> None:
    page.open(f"{closed.url}#live")  # which is hidden, also before the models are known
    page.wait("document.querySelector('#key-dialog').open")
    page.press("Escape")
    page.wait("document.querySelector('#page-error .detail') !== null")
    for view in ("similarity", "search", "classify", "rerank", "tokens"):
        page.click(f"[data-tab={view}]")
        page.click(f"{panel(page)} button.primary")
        page.wait("document.querySelector('#key-dialog').open")
        if view != "tokens":
            page.press("Escape")
            page.wait(f"document.querySelector('{panel(page)} [aria-busy=true]') === null")
    enter_key(page, KEY)
    page.wait(f"document.querySelector('{panel(page)} .rows') !== null")
    assert texts(page, ".error") == []
    assert "/metrics" not in "".join(page.requests)


def test_a_key_that_no_header_can_hold_is_rejected_in_the_dialog(page: Page, closed: Site) -> None:
    page.open(closed.url)
    enter_key(page, "kéy…")
    assert page.run("document.querySelector('#key').validity.patternMismatch") is True
    enter_key(page, f" {KEY} ")
    page.wait("document.querySelector('.heat') !== null")
    assert page.run("document.querySelector('#key').value") == ""


def test_only_its_own_api_is_needed(page: Page, closed: Site) -> None:
    where = unlock(page, closed)
    page.fill(f"{where} textarea", "\n".join(TEXTS))
    submit(page, where, ".heat")
    assert texts(page, f"{where} .calls [role=tab]:not([hidden])") == ["curl", "Python client", "gRPC"]
    page.click("[data-tab=tokens]")
    submit(page, panel(page), ".rows")
    page.click("[data-tab=rerank]")
    where = panel(page)
    page.fill(f"{where} input", QUERY)
    page.fill(f"{where} textarea", "\n".join(TEXTS))
    submit(page, where, ".ranking")
    pairs = [[QUERY, text] for text in TEXTS]
    rows = closed.result("/v1/classify", model="ranker", text=pairs, truncation="only_second")["labels"]
    expected = sorted((row[0]["score"] for row in rows), reverse=True)
    assert values(page, f"{where} .ranking") == pytest.approx(expected, abs=1e-5)


def test_there_is_no_live_view_without_metrics_on_this_port(page: Page, closed: Site) -> None:
    unlock(page, closed)
    assert page.run("[...document.querySelectorAll('[data-tab]')].filter((e) => !e.hidden).map((e) => e.dataset.tab)")[
        :6
    ] == ["similarity", "search", "tokens", "classify", "rerank", "curl"]
    assert "/metrics" not in "".join(page.requests)


ATTACKS: Final = {
    "an inline script": (
        "const e = document.createElement('script'); e.text = 'window.hit = 1'; document.body.append(e)",
        "script-src-elem",
    ),
    "a handler in an attribute": (
        "const e = document.createElement('button'); e.setAttribute('onclick', 'window.hit = 1');"
        "document.body.append(e); e.click()",
        "script-src-attr",
    ),
    "a style in an attribute": (
        "const e = document.createElement('p'); e.setAttribute('style', 'color: red'); document.body.append(e)",
        "style-src-attr",
    ),
    "markup in a string": ("document.body.innerHTML = '<img src=x>'", "require-trusted-types-for"),
    "a request to another host": ("fetch('http://127.0.0.1:9/').catch(() => {})", "connect-src"),
    "an image of another host": (
        "const e = document.createElement('img'); e.src = 'http://127.0.0.1:9/'; document.body.append(e)",
        "img-src",
    ),
    "a frame": (
        "const e = document.createElement('iframe'); e.src = 'http://127.0.0.1:9/'; document.body.append(e)",
        "frame-src",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("path", ["", "docs"])
def test_the_policy_blocks(page: Page, site: Site, path: str, attack: str) -> None:
    script, directive = ATTACKS[attack]
    if directive == "require-trusted-types-for" and path == "docs":
        pytest.skip("Swagger UI writes markup, whose scripts the other directives block")
    page.open(f"{site.url}{path}")
    page.run(
        "window.blocked = []; document.addEventListener('securitypolicyviolation',"
        "(event) => window.blocked.push(event.effectiveDirective))"
    )
    page.run(f"(() => {{ try {{ {script} }} catch (error) {{ window.thrown = String(error) }} }})()")
    page.wait("window.blocked.length > 0")
    stricter = set() if path == "docs" else {"require-trusted-types-for"}
    assert page.run("window.blocked[0]") in {directive, *stricter}
    assert page.run("window.hit ?? null") is None
    assert page.errors
    page.forget_errors()


def focused(page: Page, property_: str) -> str:
    found: str = page.run(f"document.activeElement.{property_}")
    return found


def test_everything_is_reached_by_keyboard(page: Page, site: Site) -> None:
    where = open_view(page, site, "similarity")
    order = []
    for _ in range(5):
        page.press("Tab")
        order.append(focused(page, "tagName") + "#" + (focused(page, "id") or focused(page, "dataset.tab") or ""))
    assert order[0].startswith("A#")
    assert order[1] == "SELECT#model"
    assert focused(page, "tagName") in {"TEXTAREA", "SELECT"}
    page.press("Tab", SHIFT)
    while focused(page, "dataset.tab") != "similarity":
        page.press("Tab", SHIFT)
    outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    visited = []
    for key in ("ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home"):
        page.press(key)
        visited.append(focused(page, "dataset.tab"))
        assert focused(page, "getAttribute('aria-selected')") == "true"
    assert visited == ["search", "live", "similarity", "live", "similarity"]
    page.press("Tab")
    assert focused(page, "name") == "texts"
    page.run("document.activeElement.select()")
    page.call("Input.insertText", text="a\nb\nc")
    page.press("Enter", CONTROL)
    page.wait(f"document.querySelectorAll('{where} .heat tbody tr').length === 3")
    assert page.errors == []


def test_controls_have_names_and_changes_are_announced(page: Page, site: Site) -> None:
    for view in TABS:
        open_view(page, site, view, "sentiment" if view == "classify" else DEMO_ID)
        unnamed = page.run(
            "[...document.querySelectorAll('input, select, textarea')]"
            ".filter((e) => e.labels.length === 0 && !e.getAttribute('aria-label')).map((e) => e.outerHTML)"
        )
        assert unnamed == []
        tabs = page.run(
            "[...document.querySelectorAll('[role=tab]')].filter((e) => {"
            "const panel = document.getElementById(e.getAttribute('aria-controls'));"
            "return panel?.getAttribute('role') !== 'tabpanel' || panel.getAttribute('aria-labelledby') !== e.id;"
            "}).length"
        )
        assert tabs == 0
    assert page.run("document.querySelectorAll('[role=alert]').length") >= len(TABS)
    assert page.run("document.querySelectorAll('h1').length") == 1
    assert page.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [320, 390, 820])
def test_nothing_scrolls_sideways_on_a_phone(page: Page, site: Site, width: int) -> None:
    page.resize(width, 640, mobile=True)
    ready = {
        "similarity": ".heat",
        "search": ".ranking",
        "tokens": ".rows",
        "classify": ".results",
        "rerank": ".ranking",
    }
    for view in TABS:
        model = {"classify": "names", "rerank": "ranker"}.get(view, DEMO_ID)
        where = open_view(page, site, view, model)
        if view in ready:
            submit(page, where, ready[view])
            page.click(f"{where} summary")
        else:
            page.wait(f"document.querySelector('{where} .card') !== null")
        assert page.run("document.documentElement.scrollWidth") <= width, view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_color_schemes_are_readable(page: Page, site: Site, scheme: str) -> None:
    page.prefer(scheme)
    where = open_view(page, site, "similarity")
    page.fill(f"{where} textarea", "\n".join(TEXTS))
    submit(page, where, ".heat")
    ground = page.run(_luminance("getComputedStyle(document.body).backgroundColor"))
    for selector in ("body", ".muted", f"{where} textarea", f"{where} .heat th", "a"):
        text = page.run(_luminance(f"getComputedStyle(document.querySelector('{selector}')).color"))
        assert _contrast(ground, text) >= 4.5, selector
    assert (ground < 0.1) == (scheme == "dark")
    cells = page.run(
        f"[...document.querySelectorAll('{where} .heat tbody td')].map((e) => [getComputedStyle(e).color,"
        "getComputedStyle(e).backgroundColor])"
    )
    for color, background in {tuple(cell) for cell in cells}:
        found = [page.run(_luminance(repr(value))) for value in (color, background)]
        assert _contrast(*found) >= 3.5, (color, background)


def _luminance(color: str) -> str:
    """A script for the relative luminance of a CSS color, drawn to a canvas."""
    return (
        "(() => { const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});"
        f"c.fillStyle = {color}; c.fillRect(0, 0, 1, 1);"
        "const [r, g, b] = [...c.getImageData(0, 0, 1, 1).data].map((v) => v / 255)"
        ".map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));"
        "return 0.2126 * r + 0.7152 * g + 0.0722 * b; })()"
    )


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
