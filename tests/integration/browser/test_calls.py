"""Calls that the page shows for copying: they run, and give the page's numbers."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import pytest
from google.protobuf import json_format

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.proto.tensors import to_floats
from tests.integration.browser.conftest import KEY, Site, open_view, panel, submit, values
from tests.integration.browser.test_page import unlock
from tests.integration.process import ROOT
from tools.browser import Page

HARD: Final = ['It\'s "quoted" \\n and $HOME `id`', "Où est 東京 🎉?", "<b>plain</b> %s {}"]
"""Texts that a shell, Python or JSON could change."""
OPENAI: Final = '''
import json, types, urllib.request

class OpenAI:
    """Sends what OpenAI's client sends."""

    def __init__(self, base_url, api_key):
        self.embeddings = types.SimpleNamespace(create=lambda **given: create(base_url, api_key, given))

def create(base_url, api_key, given):
    given |= given.pop("extra_body", {})
    headers = {"content-type": "application/json", "authorization": "Bearer " + api_key}
    request = urllib.request.Request(base_url + "/embeddings", json.dumps(given).encode(), headers)
    data = json.load(urllib.request.urlopen(request))["data"]
    return types.SimpleNamespace(data=[types.SimpleNamespace(**item) for item in data])
'''


def calls(page: Page, where: str) -> dict[str, str]:
    """Returns the code of each language that is shown."""
    found: dict[str, str] = page.run(
        f"Object.fromEntries([...document.querySelectorAll('{where} [data-call]')]"
        ".map((e) => [e.dataset.call, e.textContent]))"
    )
    return {language: code for language, code in found.items() if code}


def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "openai.py").write_text(OPENAI)
    paths = os.pathsep.join((str(ROOT / "service"), str(tmp_path)))
    return {**os.environ, "ELECTRA_API_KEY": KEY, "PYTHONPATH": paths}


def run_curl(code: str, tmp_path: Path) -> Any:
    done = subprocess.run(["bash", "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def run_python(code: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_grpc(code: str, site: Site) -> Any:
    """Sends a call of grpcurl by the generated stub."""
    words = shlex.split(code.replace("$ELECTRA_API_KEY", KEY))
    assert words[:2] == ["grpcurl", "-plaintext"]
    assert words[-2] == site.process.target
    method = words[-1].removeprefix("electra.v1.EncoderService/")
    request = json_format.ParseDict(json.loads(words[words.index("-d") + 1]), getattr(pb, f"{method}Request")())
    metadata = [tuple(words[words.index("-H") + 1].split(": "))] if "-H" in words else []
    with grpc.insecure_channel(site.process.target) as channel:
        return getattr(EncoderServiceStub(channel), method)(request, metadata=metadata, timeout=60)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", text)]


def units(vectors: Any) -> np.ndarray:
    array = np.asarray(vectors, np.float64)
    found: np.ndarray = array / np.linalg.norm(array, axis=1, keepdims=True)
    return found


def test_calls_of_the_map(page: Page, site: Site, tmp_path: Path) -> None:
    where = open_view(page, site, "similarity")
    page.fill(f"{where} textarea", "\n".join(HARD))
    submit(page, where, ".heat")
    shown = np.reshape(values(page, f"{where} .heat"), (len(HARD), -1))
    code = calls(page, where)
    assert code.keys() == {"curl", "python", "grpc", "openai"}
    vectors = units(run_curl(code["curl"], tmp_path)["embedding"])
    assert (vectors @ vectors.T) == pytest.approx(shown, abs=1e-5)
    for language in ("python", "openai"):
        assert numbers(run_python(code[language], tmp_path)) == pytest.approx(shown.ravel(), abs=0.0051)
    tensor = units(to_floats(run_grpc(code["grpc"], site).embedding))
    assert (tensor @ tensor.T) == pytest.approx(shown, abs=1e-5)


def test_calls_of_the_search(page: Page, site: Site, tmp_path: Path) -> None:
    where = open_view(page, site, "search")
    page.fill(f"{where} input", HARD[0])
    page.fill(f"{where} textarea", "\n".join(HARD))
    submit(page, where, ".ranking")
    shown = sorted(values(page, f"{where} .ranking"), reverse=True)
    code = calls(page, where)
    for language in ("python", "openai"):
        found = numbers(run_python(code[language], tmp_path))
        assert sorted(found, reverse=True) == pytest.approx(shown, abs=1e-5)


def test_calls_of_tokens(page: Page, site: Site, tmp_path: Path) -> None:
    where = open_view(page, site, "tokens")
    page.fill(f"{where} textarea", "\n".join(HARD))
    page.click(f"{where} input[name=special]")
    submit(page, where, ".rows")
    code = calls(page, where)
    assert code.keys() == {"curl", "python"}
    expected = site.result("/v1/tokenize", model=DEMO_ID, text="\n".join(HARD), add_special_tokens=False)
    assert run_curl(code["curl"], tmp_path) == expected
    printed = [line.split()[0] for line in run_python(code["python"], tmp_path).splitlines()]
    assert printed == [str(token["id"]) for token in expected["tokens"][0]]


@pytest.mark.parametrize("model", ["sentiment", "names", "questions", "detector"])
def test_calls_of_classify(page: Page, site: Site, tmp_path: Path, model: str) -> None:
    where = open_view(page, site, "classify", model)
    control = "textarea[name=context]" if model == "questions" else "textarea[name=texts]"
    page.fill(f"{where} {control}", "\n".join(HARD))
    submit(page, where, ".results")
    shown = sorted(values(page, f"{where} .scores"))
    code = calls(page, where)
    assert code.keys() == {"curl", "python", "grpc"}
    by_curl = run_curl(code["curl"], tmp_path)
    (member,) = by_curl.keys() & {"labels", "spans", "answers"}
    assert sorted(item["score"] for row in by_curl[member] for item in row) == pytest.approx(shown, abs=1e-5)
    by_grpc = run_grpc(code["grpc"], site).results
    assert sorted(item.score for row in by_grpc for item in getattr(row, member)) == pytest.approx(shown, abs=1e-5)
    scores = re.findall(r"score=(-?[\d.e-]+)", run_python(code["python"], tmp_path))
    assert sorted(map(float, scores)) == pytest.approx(shown, abs=1e-5)


def test_calls_of_rerank(page: Page, site: Site, tmp_path: Path) -> None:
    where = open_view(page, site, "rerank", "ranker")
    page.fill(f"{where} input", HARD[0])
    page.fill(f"{where} textarea", "\n".join(HARD))
    submit(page, where, ".ranking")
    shown = values(page, f"{where} .ranking")
    code = calls(page, where)
    assert [item["relevance_score"] for item in run_curl(code["curl"], tmp_path)["results"]] == pytest.approx(shown)
    assert [item.score for item in run_grpc(code["grpc"], site).results] == pytest.approx(shown, abs=1e-5)
    scores = re.findall(r"score=(-?[\d.e-]+)", run_python(code["python"], tmp_path))
    assert [float(score) for score in scores] == pytest.approx(shown, abs=1e-5)


def test_calls_with_a_key_name_a_variable(page: Page, closed: Site, tmp_path: Path) -> None:
    where = unlock(page, closed, "rerank")
    page.fill(f"{where} textarea", "\n".join(HARD))
    submit(page, where, ".ranking")
    shown = values(page, f"{where} .ranking")
    code = calls(page, where)
    assert KEY not in "".join(code.values())
    ranked = sorted((row[0]["score"] for row in run_curl(code["curl"], tmp_path)["labels"]), reverse=True)
    assert ranked == pytest.approx(shown)
    by_grpc = sorted((row.labels[0].score for row in run_grpc(code["grpc"], closed).results), reverse=True)
    assert by_grpc == pytest.approx(shown, abs=1e-5)
    scores = re.findall(r"score=(-?[\d.e-]+)", run_python(code["python"], tmp_path))
    assert sorted(map(float, scores), reverse=True) == pytest.approx(shown, abs=1e-5)
    page.click("[data-tab=tokens]")
    where = panel(page)
    submit(page, where, ".rows")
    code = calls(page, where)
    assert run_curl(code["curl"], tmp_path)["model"] == "ranker"
    assert run_python(code["python"], tmp_path)


COPIED: Final = {
    "over TLS and on this machine": (
        "navigator.clipboard.writeText = async (text) => { window.copied = text; }",
        "window.copied",
    ),
    "elsewhere, where browsers have no clipboard": (
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
        "document.addEventListener('copy', () => { window.copied = getSelection().toString(); })",
        "window.copied",
    ),
}


@pytest.mark.parametrize("case", COPIED)
def test_a_call_can_be_copied(page: Page, site: Site, case: str) -> None:
    setup, copied = COPIED[case]
    where = open_view(page, site, "similarity")
    submit(page, where, ".heat")
    page.click(f"{where} summary")
    page.run(f"(() => {{ {setup} }})()")
    page.click(f"{where} [data-tab=grpc]")
    page.click(f"{where} .calls-head > button")
    page.wait(f"document.querySelector('{where} .calls-head > button').textContent === 'Copied'")
    assert page.run(copied) == calls(page, where)["grpc"]
