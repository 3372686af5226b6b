"""Fake hubs, and sources that use them through the real clients in the real fetching process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from electra_serve.presets.hubs.build import LOGGER
from electra_serve.presets.hubs.cache import PresetCache
from electra_serve.presets.hubs.fetcher import Fetcher, RetryLimits
from electra_serve.presets.hubs.process import FetchLimits, FetchProcess
from electra_serve.presets.hubs.progress import ProgressLog
from electra_serve.presets.hubs.source import HubSource
from tests.data.reader import GOLDEN
from tests.integration.hubs.huggingface import FakeHuggingFace
from tests.integration.hubs.kaggle import FakeKaggle
from tests.integration.hubs.server import FakeHub
from tests.integration.process import ROOT

KAGGLE_REPO = "keras/electra/keras/tiny_en"
HF_REPO = "keras/tiny_en"


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PRESET: Mapping[str, bytes] = files(GOLDEN / "below")
SHARDED: Mapping[str, bytes] = files(GOLDEN / "sharded")


@pytest.fixture
def kaggle() -> Iterator[FakeKaggle]:
    """Has the preset as versions 1 and 2."""
    hub = FakeKaggle()
    hub.models[KAGGLE_REPO] = {1: PRESET, 2: PRESET}
    with hub.serving():
        yield hub


@pytest.fixture
def hf() -> Iterator[FakeHuggingFace]:
    """Has the preset on its default branch, next to a pickle."""
    hub = FakeHuggingFace()
    hub.commit(HF_REPO, {**PRESET, "pytorch_model.bin": b"\x80\x04.", "README.md": b"# Tiny"})
    with hub.serving():
        yield hub


@dataclass(frozen=True, slots=True)
class Case:
    """One hub, and what its names are there.

    Attributes:
        hub: The fake.
        moving: A handle that means the newest.
        pinned: A handle whose meaning cannot change.
        weights: What is in the paths that the weights are fetched from.
    """

    hub: FakeKaggle | FakeHuggingFace
    moving: str
    pinned: str
    weights: str


@pytest.fixture(params=["kaggle", "hf"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each hub in turn."""
    hub = request.getfixturevalue(request.param)
    if isinstance(hub, FakeKaggle):
        return Case(hub, f"kaggle://{KAGGLE_REPO}", f"kaggle://{KAGGLE_REPO}/2", "/blobs/keras%2Felectra")
    commit = hub.branches[HF_REPO, "main"]
    return Case(hub, f"hf://{HF_REPO}", f"hf://{HF_REPO}@{commit}", "/resolve/")


@dataclass(slots=True)
class Stack:
    """The sources as `build_hubs` makes them, but for time: back-off is noted, not waited for."""

    cache: PresetCache
    waits: list[float]
    make: Callable[..., HubSource]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """Makes sources on one cache."""
    cache = PresetCache(tmp_path / "cache")
    waits: list[float] = []
    log = logging.getLogger(LOGGER)

    def make(*hubs: FakeHub, offline: bool = False, **limits: float) -> HubSource:
        bounds = {"attempts": 2, "stall_timeout_s": 20.0, "timeout_s": 60.0, "max_bytes": 10**7, **limits}
        process = FetchProcess(
            FetchLimits(bounds["stall_timeout_s"], int(bounds["max_bytes"])),
            environment_of(tmp_path, *hubs),
            ProgressLog(log),
        )
        retries = RetryLimits(bounds["timeout_s"], int(bounds["attempts"]))
        fetcher = Fetcher(cache, process.run, retries, log, sleep=waits.append)
        return HubSource(cache, fetcher, offline=offline, log=log)

    return Stack(cache, waits, make)


def environment_of(home: Path, *hubs: FakeHub) -> dict[str, str]:
    """Returns the environment of a process that uses these hubs, without this machine's tokens and proxies."""
    sources = os.pathsep.join((str(ROOT), str(ROOT / "service")))
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": sources}
    for hub in hubs:
        environment |= hub.environment  # type: ignore[attr-defined]  # both fakes have one
    return environment
