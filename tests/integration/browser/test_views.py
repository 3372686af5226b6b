"""Views of the page: their numbers and problems are those of the API."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from electra_serve.presets.catalog import DEMO_ID
from tests.integration.browser.conftest import (
    HOSTILE,
    MODELS,
    REJECTED,
    Site,
    choose,
    open_view,
    panel,
    submit,
    texts,
    values,
)
from tests.integration.process import start
from tests.integration.test_startup import SLOW_MODEL
from tools.browser import Page

TEXTS: Final = ["Alice fell down a well.", "Où est 東京 🎉?", '<b>not bold</b> & "it\'s" \\ plain', "The Queen."]
QUERY: Final = "Who fell?"


def cosines(site: Site, lines: list[str], output: str, model: str = DEMO_ID) -> np.ndarray:
    """Cosines of all pairs by the API: (N, N)."""
    vectors = np.array(site.result("/v1/encode", model=model, text=lines, outputs=[output])[output])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = units @ units.T
    return found


def test_the_first_map_appears_by_itself(page: Page, site: Site) -> None:
    page.open(site.url)
    page.wait("document.querySelector('.heat') !== null")
    lines = str(page.run("document.querySelector('textarea[name=texts]').value")).split("\n")
    expected = cosines(site, lines, "embedding")
    assert values(page, ".heat") == pytest.approx(expected.ravel().tolist(), abs=1e-5)
    assert texts(page, ".heat data") == [f"{value:z.2f}" for value in values(page, ".heat")]
    assert page.errors == []


@pytest.mark.parametrize("output", ["embedding", "mean_output"])
def test_the_map_has_the_cosines_of_the_api(page: Page, site: Site, output: str) -> None:
    where = open_view(page, site, "similarity")
    page.fill(f"{where} textarea", "\n".join(["", *TEXTS, "  "]))
    page.run(f"document.querySelector('{where} select').value = '{output}'")
    submit(page, where, ".heat")
    expected = cosines(site, TEXTS, output)
    assert values(page, f"{where} .heat") == pytest.approx(expected.ravel().tolist(), abs=1e-5)
    shown = texts(page, f"{where} .heat data")
    assert shown == [f"{value:z.2f}" for value in values(page, f"{where} .heat")]
    assert texts(page, f"{where} .heat tbody .text") == TEXTS
    assert f"{len(TEXTS)} sequences" in page.text(f"{where} .status")


@pytest.mark.parametrize(("width", "count"), [(1280, 20), (1280, 120), (390, 120)])
def test_a_large_map_has_readable_numbers_and_a_limit(page: Page, site: Site, width: int, count: int) -> None:
    page.resize(width, 900)
    where = open_view(page, site, "similarity")
    page.run(f"document.querySelector('{where} textarea').value = {chr(10).join(map(str, range(count)))!r}")
    submit(page, where, ".heat")
    shown = min(count, 100)
    assert texts(page, f"{where} .heat tbody .index") == [str(at + 1) for at in range(shown)]
    cut = page.run(
        f"[...document.querySelectorAll('{where} .heat tbody .index')].filter((e) =>"
        "e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right).length"
    )
    assert cut == 0
    assert len(values(page, f"{where} .heat")) == shown**2
    notes = [f"Only the first 100 of {count} texts are compared."] if count > shown else []
    assert texts(page, f"{where} .note") == notes


def test_long_texts_list_their_first_tokens(page: Page, site: Site) -> None:
    where = open_view(page, site, "tokens")
    page.run(f"document.querySelector('{where} textarea').value = '!'.repeat(2500)")
    submit(page, where, ".rows")
    assert page.run(f"document.querySelectorAll('{where} .rows tbody tr').length") == 2000
    assert texts(page, f"{where} .note") == [
        "The model takes at most 512 ids; the text has 2502.",
        "Only the first 2000 are listed.",
    ]


def test_a_label_changes_nothing_behind_it(page: Page, site: Site) -> None:
    where = open_view(page, site, "classify", "names")
    page.fill(f"{where} textarea[name=texts]", "Alice met the White Rabbit in London.")
    submit(page, where, ".results")
    assert HOSTILE in "".join(texts(page, f"{where} .label"))
    boxes = page.run(
        f"[...document.querySelectorAll('{where} mark')].map((e) => e.getClientRects()[0]).map((b) => [b.y, b.x])"
    )
    assert boxes == sorted(boxes)  # in reading order
    assert page.run("window.hit ?? null") is None


@pytest.mark.parametrize(("view", "result"), [("similarity", ".heat"), ("search", ".ranking")])
def test_a_result_is_shown_of_the_controls_that_were_sent(page: Page, site: Site, view: str, result: str) -> None:
    where = open_view(page, site, view)
    page.wait(f"!document.querySelector('{where} [aria-busy=true]')")
    page.run(f"document.querySelector('{where} .result').replaceChildren()")
    page.run(
        f"(() => {{ document.querySelector('{where} button.primary').click();"
        f"document.querySelector('{where} select').value = 'mean_output'; }})()"
    )
    page.wait(f"document.querySelector('{where} {result}') !== null")
    sent = page.run(f"[...document.querySelectorAll('{where} input, {where} textarea')].map((e) => e.value)")
    expected = cosines(site, "\n".join(sent).split("\n"), "embedding")
    shown = expected if view == "similarity" else -np.sort(-expected[0, 1:])
    assert values(page, f"{where} {result}") == pytest.approx(shown.ravel().tolist(), abs=1e-5)


def test_a_search_ranks_by_cosine(page: Page, site: Site) -> None:
    where = open_view(page, site, "search")
    page.fill(f"{where} input", QUERY)
    page.fill(f"{where} textarea", "\n".join(TEXTS))
    submit(page, where, ".ranking")
    scores = cosines(site, [QUERY, *TEXTS], "embedding")[0, 1:]
    order = np.argsort(-scores, kind="stable")
    assert values(page, f"{where} .ranking") == pytest.approx(scores[order].tolist(), abs=1e-5)
    assert texts(page, f"{where} .ranking .text") == [TEXTS[at] for at in order]


@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_those_of_the_api(page: Page, site: Site, special: bool) -> None:
    where = open_view(page, site, "tokens")
    page.fill(f"{where} textarea", TEXTS[1])
    if not special:
        page.click(f"{where} input[name=special]")
    submit(page, where, ".rows")
    (tokens,) = site.result("/v1/tokenize", model=DEMO_ID, text=TEXTS[1], add_special_tokens=special)["tokens"]
    rows = [
        [str(at), token["piece"], str(token["id"]), *_place(token)] for at, token in enumerate(tokens)
    ]  # fmt: skip
    cells = texts(page, f"{where} .rows tbody :is(td, th)")
    assert [cells[at : at + 5] for at in range(0, len(cells), 5)] == rows
    assert texts(page, f"{where} .piece") == [token["piece"] for token in tokens]
    ids = [token["id"] for token in tokens]
    if special:
        by_ids = site.result("/v1/encode", model=DEMO_ID, token_ids=[ids], outputs=["mean_output"])
        by_text = site.result("/v1/encode", model=DEMO_ID, text=TEXTS[1], outputs=["mean_output"])
        assert by_ids["mean_output"] == by_text["mean_output"]


def _place(token: dict[str, Any]) -> list[str]:
    return ["", ""] if token["special"] else [f"{token['start']}–{token['end']}", token["text"]]


@pytest.mark.parametrize("model", ["sentiment", "ranker"])
def test_labels_are_those_of_the_api(page: Page, site: Site, model: str) -> None:
    where = open_view(page, site, "classify", model)
    page.fill(f"{where} textarea[name=texts]", "\n".join(TEXTS))
    submit(page, where, ".results")
    rows = site.result("/v1/classify", model=model, text=TEXTS)["labels"]
    expected = [label for row in rows for label in row]
    assert texts(page, f"{where} .label") == [label["label"] for label in expected]
    assert values(page, f"{where} .scores") == pytest.approx([label["score"] for label in expected], abs=1e-5)


@pytest.mark.parametrize("model", ["names", "detector"])
def test_spans_are_those_of_the_api(page: Page, site: Site, model: str) -> None:
    where = open_view(page, site, "classify", model)
    page.fill(f"{where} textarea[name=texts]", "\n".join(TEXTS))
    submit(page, where, ".results")
    rows = site.result("/v1/classify", model=model, text=TEXTS)["spans"]
    spans = [span for row in rows for span in row]
    assert values(page, f"{where} .scores") == pytest.approx([span["score"] for span in spans], abs=1e-5)
    assert texts(page, f"{where} .label") == [f"{span['label']}: {span['text']}" for span in spans]
    marked = page.run(
        f"[...document.querySelectorAll('{where} mark')].map((e) => e.firstChild.textContent)"
    )  # without the label behind it
    assert marked == [span["text"] for span in spans]
    page.run(f"document.querySelectorAll('{where} .tag').forEach((e) => e.remove())")
    assert texts(page, f"{where} .marked") == TEXTS


def test_answer_spans_are_those_of_the_api(page: Page, site: Site) -> None:
    where = open_view(page, site, "classify", "questions")
    context = " ".join(TEXTS)
    page.fill(f"{where} input[name=question]", QUERY)
    page.fill(f"{where} textarea[name=context]", context)
    assert page.run(f"document.querySelector('{where} textarea[name=texts]').offsetParent") is None
    submit(page, where, ".results")
    body = {"model": "questions", "question": QUERY, "context": context, "top_k": 3}
    (answers,) = site.result("/v1/classify", **body)["answers"]
    assert texts(page, f"{where} .label") == [answer["text"] for answer in answers]
    assert values(page, f"{where} .scores") == pytest.approx([answer["score"] for answer in answers], abs=1e-5)


def test_documents_are_ranked_as_by_the_api(page: Page, site: Site) -> None:
    where = open_view(page, site, "rerank", "ranker")
    page.fill(f"{where} input", QUERY)
    page.fill(f"{where} textarea", "\n".join(TEXTS))
    submit(page, where, ".ranking")
    results = site.result("/v1/rerank", model="ranker", query=QUERY, documents=TEXTS)["results"]
    assert texts(page, f"{where} .ranking .text") == [TEXTS[item["index"]] for item in results]
    scores = [item["relevance_score"] for item in results]
    assert values(page, f"{where} .ranking") == pytest.approx(scores, abs=1e-5)


def problem(page: Page, where: str) -> dict[str, str]:
    """Returns the parts of the problem that a view shows."""
    names, found = texts(page, f"{where} [role=alert] dt"), texts(page, f"{where} [role=alert] dd")
    return dict(zip(names, found, strict=True)) | {"detail": page.text(f"{where} [role=alert] .detail")}


@pytest.mark.parametrize(
    ("view", "path", "lines", "status"),
    [
        ("similarity", "/v1/encode", [], 422),
        ("similarity", "/v1/encode", ["a"] * 257, 413),
        ("similarity", "/v1/encode", ["a" * 100_001], 422),
    ],
)
def test_problems_are_worded_as_by_the_api(
    page: Page, site: Site, view: str, path: str, lines: list[str], status: int
) -> None:
    where = open_view(page, site, view)
    page.run(f"document.querySelector('{where} textarea').value = {chr(10).join(lines)!r}")
    submit(page, where, ".error")
    body = {"model": DEMO_ID, "text": lines, "outputs": ["embedding"], "truncate": True}
    expected = site.post(path, body)
    given = expected.json()
    shown = problem(page, where)
    assert (expected.status_code, shown["detail"]) == (status, given["detail"])
    assert (shown["code"], shown["field"]) == (given["code"], given["field"])
    assert f"({status})" in page.text(f"{where} [role=alert] strong")
    logged = [event for event in site.process.events if event.get("request_id") == shown["request id"]]
    assert [event["code"] for event in logged] == [given["code"]]
    assert len(page.errors) == 1
    assert page.errors[0].startswith(f"{REJECTED}{status}")


def test_problems_of_other_apis_are_worded_as_by_them(page: Page, site: Site) -> None:
    where = open_view(page, site, "rerank", "ranker")
    query = "word " * 600
    page.run(f"document.querySelector('{where} input').value = {query!r}")
    submit(page, where, ".error")
    given = site.post("/v1/rerank", {"model": "ranker", "query": query, "documents": ["a"]}).json()
    shown = problem(page, where)
    assert shown["detail"] == given["error"]["message"]
    assert (shown["code"], shown.get("field")) == (given["error"]["code"], given["error"]["param"])


def test_a_model_without_a_fitting_head_is_a_problem(page: Page, site: Site) -> None:
    where = open_view(page, site, "classify", DEMO_ID)
    submit(page, where, ".error")
    body = {"model": DEMO_ID, "text": ["a"], "truncate": True}
    assert problem(page, where)["detail"] == site.post("/v1/classify", body).json()["detail"]


def test_a_problem_goes_with_the_next_result(page: Page, site: Site) -> None:
    where = open_view(page, site, "similarity")
    page.fill(f"{where} textarea", "")
    submit(page, where, ".error")
    page.fill(f"{where} textarea", "a\nb")
    submit(page, where, ".heat")
    assert texts(page, f"{where} .error") == []


def test_a_stopped_service_is_a_problem(page: Page, tmp_path: Path) -> None:
    with start(tmp_path) as process:
        process.wait_ready()
        where = open_view(page, Site(process, {}), "similarity")
        page.wait(f"document.querySelector('{where} .heat') !== null")
        process.terminate()
        process.wait()
        submit(page, where, ".error")
    assert problem(page, where)["detail"].startswith("The service cannot be reached")
    assert all("ERR_CONNECTION_REFUSED" in error for error in page.errors)
    page.forget_errors()


def test_a_model_that_loads_is_shown_and_rejects(page: Page, tmp_path: Path) -> None:
    with start(tmp_path, f"--models={SLOW_MODEL}") as process:
        process.wait_live()
        page.open(f"{process.url}/")
        page.wait("document.querySelector('#model').options.length > 0")
        assert texts(page, "#model option")[0].endswith("(loading)")
        assert "state loading" in page.text("#model-facts")
        where = panel(page)
        submit(page, where, ".error")
        shown = problem(page, where)
    assert (shown["code"], shown["retry after"]) == ("model_not_ready", "1 s")


def test_several_models_are_listed_and_used(page: Page, site: Site) -> None:
    page.open(site.url)
    page.wait("document.querySelector('#model').options.length > 0")
    assert texts(page, "#model option") == [DEMO_ID, *MODELS]
    choose(page, "sentiment")
    assert "sequence classification" in page.text("#model-facts")
    where = panel(page)
    page.fill(f"{where} textarea", "\n".join(TEXTS))
    submit(page, where, ".heat")
    expected = cosines(site, TEXTS, "embedding", "sentiment")
    assert values(page, f"{where} .heat") == pytest.approx(expected.ravel().tolist(), abs=1e-5)


def test_models_that_changed_are_listed_after_the_problem(page: Page, site: Site) -> None:
    where = open_view(page, site, "similarity")
    page.wait(f"!document.querySelector('{where} [aria-busy=true]')")
    page.run(
        "(() => { const e = document.querySelector('#model').options[0]; e.value = e.textContent = 'unloaded'; })()"
    )
    page.run(
        "(() => { const send = window.fetch; window.fetch = (url, options) => send(url, options?.body"
        f" ? {{...options, body: options.body.replace('{DEMO_ID}', 'unloaded')}} : options); }})()"
    )
    submit(page, where, ".error")
    assert problem(page, where)["code"] == "model_not_found"
    page.wait(f"document.querySelector('#model').value === '{DEMO_ID}'")


def test_a_view_chooses_a_model_that_suits_it(page: Page, site: Site) -> None:
    open_view(page, site, "similarity")
    page.click("[data-tab=rerank]")
    assert page.run("document.querySelector('#model').value") == "ranker"
    page.click("[data-tab=search]")
    assert page.run("document.querySelector('#model').value") == "ranker"
    page.open("about:blank")
    page.open(f"{site.url}#classify")
    page.wait("document.querySelector('#model').value === 'ranker'")


def test_the_live_view_shows_the_load(page: Page, site: Site) -> None:
    where = open_view(page, site, "live")
    page.wait(f"document.querySelectorAll('{where} .card').length === 4")
    assert texts(page, f"{where} .card h3") == ["Requests / s", "Latency p50", "Queue", "Batch fill"]
    assert texts(page, f"{where} tbody th") == [DEMO_ID, *MODELS]
    ends = time.monotonic() + 60
    with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=site.process.url) as client:
        rate = 0.0
        while rate == 0 and time.monotonic() < ends:
            body = {"model": "names", "text": TEXTS, "outputs": ["mean_output"]}
            list(pool.map(lambda _: client.post("/v1/encode", json=body), range(8)))  # noqa: B023
            cells = texts(page, f"{where} tbody tr:nth-child(4) td")
            rate = float(cells[0])
    page.wait(f"document.querySelector('{where} tbody tr:nth-child(4) td:last-child').textContent.endsWith('%')")
    cells = texts(page, f"{where} tbody tr:nth-child(4) td")
    assert cells[2].endswith(" ms")
    assert 0 < int(cells[-1].removesuffix(" %")) <= 100
    before = len(page.requests)
    page.click("[data-tab=similarity]")
    page.run("new Promise((resolve) => setTimeout(resolve, 1500))")
    assert "/metrics" not in "".join(page.requests[before + 1 :])  # one may have been on its way
    assert page.errors == []
