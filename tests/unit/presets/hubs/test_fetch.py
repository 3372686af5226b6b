"""Events of the child process with a client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from electra_serve.presets.hubs.fetch import fetch, make_client
from electra_serve.presets.hubs.handle import Handle
from tests.data.reader import GOLDEN

FOLDER = GOLDEN / "below"
NAMES = ["config.json", "metadata.json", "model.weights.h5"]


class FakeClient:
    """Has the files of a folder."""

    version = "fake 1"
    folder = FOLDER
    total_bytes = 42

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolve(self) -> str:
        return "2"

    def download(self, name: str) -> Path | None:
        self.asked.append(name)
        return FOLDER / name if (FOLDER / name).is_file() else None


def test_each_step_is_reported() -> None:
    events: list[Mapping[str, object]] = []
    fetch(FakeClient(), "1", events.append)
    had = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert events == [
        {"client": "fake 1", "folder": str(FOLDER), "had_bytes": had},
        {"revision": "2", "total_bytes": 42},
        {"files": {name: str(FOLDER / name) for name in NAMES}},
    ]


def test_a_known_revision_is_not_fetched() -> None:
    events: list[Mapping[str, object]] = []
    client = FakeClient()
    fetch(client, "2", events.append)
    assert events[-1] == {"files": {}}
    assert client.asked == []


@pytest.mark.parametrize("handle", [Handle("kaggle", "a/b/keras/c", "1"), Handle("hf", "a/b")])
def test_each_hub_has_a_client(handle: Handle) -> None:
    assert make_client(handle).version.startswith(("kagglehub ", "huggingface_hub "))
