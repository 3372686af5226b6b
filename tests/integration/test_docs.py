"""Documents: every link has a target, and the README's commands have the documented results."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from electra_serve import ElectraClient, GrpcElectraClient
from tests.integration.process import start

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page for place in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "deploy/**/*.md") for page in ROOT.glob(place)
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
MAX_README_LINES = 150


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in ROOT.glob("docs/*.md") if f"]({page.name})" not in index] == ["README.md"]


def test_the_readmes_request_gets_the_readmes_response(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shell = next(text for language, text in FENCE.findall(readme) if language == "console" and "curl" in text)
    command, _, response = shell.removeprefix("$ ").partition("\n[")
    with start(tmp_path) as service:
        service.wait_ready()
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{service.rest_port}")
        done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    documented = [float(value) for value in re.findall(r"-?\d+\.\d+", response.partition("]")[0])]
    assert json.loads(done.stdout) == pytest.approx(documented, abs=0.01)
    paraphrase, other = documented
    assert paraphrase - other > 0.3


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    source = next(text for language, text in FENCE.findall(readme) if language == "python")
    with start(tmp_path) as service:
        service.wait_ready()
        source = source.replace("127.0.0.1:8080", f"127.0.0.1:{service.rest_port}")
        source = source.replace("127.0.0.1:50051", f"127.0.0.1:{service.grpc_port}")
        names: dict[str, object] = {"ElectraClient": ElectraClient, "GrpcElectraClient": GrpcElectraClient}
        exec(source, names)  # our own example
    assert type(names["response"]).__name__ == "EncodeResponse"
