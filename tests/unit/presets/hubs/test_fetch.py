"""What the fetching process does with a client: what it tells, and where it puts files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from electra_serve.presets.hubs.fetch import fetch, make_client
from electra_serve.presets.hubs.files import STAGED
from electra_serve.presets.hubs.handle import Handle
from tests.data.reader import GOLDEN

NAMES = ["config.json", "metadata.json", "model.weights.h5"]


class FakeClient:
    """Has the files of a folder, and tells where they are: there, or copied into `staging`."""

    version = "fake 1"
    total_bytes = 42

    def __init__(self, folder: Path, staging: Path | None = None) -> None:
        self._folder = folder
        self._staging = staging
        self.asked: list[str] = []

    def resolve(self) -> str:
        return "2"

    def download(self, name: str) -> Path | None:
        self.asked.append(name)
        path = self._folder / name
        if not path.is_file():
            return None
        return path if self._staging is None else Path(shutil.copy(path, self._staging))


@pytest.mark.parametrize("elsewhere", [True, False])
def test_files_end_up_staged_wherever_the_client_had_them(tmp_path: Path, elsewhere: bool) -> None:
    events: list[Mapping[str, object]] = []
    client = FakeClient(GOLDEN / "below", None if elsewhere else tmp_path)
    (tmp_path / STAGED).mkdir()
    (tmp_path / STAGED / "left.json").write_text("of an earlier attempt")
    fetch(client, tmp_path, "1", events.append)
    assert events == [{"revision": "2", "client": "fake 1", "total_bytes": 42}, {"files": NAMES}]
    staged = tmp_path / STAGED
    assert sorted(path.name for path in staged.iterdir()) == NAMES
    assert all((staged / name).read_bytes() == (GOLDEN / "below" / name).read_bytes() for name in NAMES)


def test_a_revision_that_is_there_is_not_fetched(tmp_path: Path) -> None:
    events: list[Mapping[str, object]] = []
    client = FakeClient(GOLDEN / "below")
    fetch(client, tmp_path, "2", events.append)
    assert events[-1] == {"files": []}
    assert client.asked == []


@pytest.mark.parametrize("handle", [Handle("kaggle", "a/b/keras/c", "1"), Handle("hf", "a/b")])
def test_each_hub_has_a_client(tmp_path: Path, handle: Handle) -> None:
    assert make_client(handle, tmp_path).version.startswith(("kagglehub ", "huggingface_hub "))
