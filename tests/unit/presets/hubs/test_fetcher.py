"""Attempts, back-off and publication, with a scripted attempt and a fake clock."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.hubs.cache import PresetCache
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError
from electra_serve.presets.hubs.fetcher import Fetcher, HubError, RetryLimits
from electra_serve.presets.hubs.handle import Handle
from electra_serve.presets.hubs.manifest import MANIFEST_FILE, verify
from electra_serve.presets.hubs.process import Fetched
from tests.data.reader import GOLDEN
from tests.fakes import FakeClock

HANDLE = Handle("kaggle", "org/electra/keras/tiny", "2")
MOVING = Handle("kaggle", "org/electra/keras/tiny")
NAMES = ("config.json", "metadata.json", "model.weights.h5")
FOLDER = GOLDEN / "below"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Step = Callable[[], Fetched]


def succeed() -> Fetched:
    return Fetched("2", "fake 1", {name: FOLDER / name for name in NAMES})


def fail(kind: FailureKind, retry_after_s: float | None = None) -> Step:
    def step() -> Fetched:
        raise FetchError(Failure(kind, "reported", retry_after_s))

    return step


class FakeAttempt:
    """Does one step after the other.

    Attributes:
        timeouts_s: Timeout of each attempt.
        had: Known revision of each attempt.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.timeouts_s: list[float] = []
        self.had: list[str] = []

    def __call__(self, handle: Handle, *, have: str, timeout_s: float, offline: bool = False) -> Fetched:
        self.timeouts_s.append(timeout_s)
        self.had.append(have)
        return self._steps.pop(0)()


def make(cache: PresetCache, attempt: FakeAttempt, *, timeout_s: float = 100.0, attempts: int = 4) -> Fetcher:
    clock = FakeClock()
    limits = RetryLimits(timeout_s, attempts)
    return Fetcher(cache, attempt, limits, logging.getLogger("test"), sleep=clock.advance, now=clock.now)


@pytest.fixture
def cache(tmp_path: Path) -> PresetCache:
    return PresetCache(tmp_path / "cache")


def test_a_published_preset_is_a_folder_of_links(cache: PresetCache) -> None:
    folder = make(cache, FakeAttempt(succeed)).fetch(HANDLE)
    assert folder == cache.folder(HANDLE) == cache.find(HANDLE)
    assert {name: (folder / name).resolve() for name in NAMES} == {name: FOLDER / name for name in NAMES}
    assert [path.name for path in folder.parent.iterdir()] == ["2"]


def test_a_cache_that_was_moved_still_has_its_files(tmp_path: Path) -> None:
    files = {name: tmp_path / "cache" / "kagglehub" / name for name in NAMES}
    shutil.copytree(FOLDER, tmp_path / "cache" / "kagglehub")
    fetched = Fetched("2", "fake 1", files)
    make(PresetCache(tmp_path / "cache"), FakeAttempt(lambda: fetched)).fetch(HANDLE)
    moved = PresetCache((tmp_path / "cache").rename(tmp_path / "moved"))
    folder = moved.find(HANDLE)
    assert folder is not None
    verify(folder)


def test_a_preset_whose_files_were_deleted_is_fetched_again(tmp_path: Path) -> None:
    client = Path(shutil.copytree(FOLDER, tmp_path / "client"))
    step = lambda: Fetched("2", "fake 1", {name: client / name for name in NAMES})  # noqa: E731
    cache = PresetCache(tmp_path / "cache")
    folder = make(cache, FakeAttempt(step)).fetch(HANDLE)
    (client / "config.json").unlink()
    assert cache.find(HANDLE) is None
    with pytest.raises(PresetError, match=r"'config\.json' is missing"):
        verify(folder)
    shutil.copy(FOLDER / "config.json", client)
    assert make(cache, FakeAttempt(step)).fetch(HANDLE) == folder


def test_files_found_offline_are_completed_once_the_hub_responds(cache: PresetCache) -> None:
    partial = Fetched("2", "fake 1", {name: FOLDER / name for name in NAMES if name != "metadata.json"}, listed=False)
    handle = Handle("hf", "org/repo", COMMIT)

    def step(fetched: Fetched) -> Callable[[], Fetched]:
        return lambda: replace(fetched, revision=COMMIT)

    folder = make(cache, FakeAttempt(step(partial))).adopt(handle)
    assert folder == cache.find(handle)
    assert cache.find_listed(handle) is None
    assert make(cache, FakeAttempt(step(succeed()))).fetch(handle) == folder == cache.find_listed(handle)
    assert set(verify(folder).files) == set(NAMES)
    assert make(cache, FakeAttempt(step(partial))).adopt(handle) == folder
    assert set(verify(folder).files) == set(NAMES)


@pytest.mark.parametrize("kind", [FailureKind.UNAVAILABLE, FailureKind.CORRUPT])
def test_a_transient_failure_is_retried(cache: PresetCache, kind: FailureKind) -> None:
    attempt = FakeAttempt(fail(kind), succeed)
    make(cache, attempt).fetch(HANDLE)
    assert attempt.timeouts_s == [100.0, 99.0]


def test_attempts_are_bounded(cache: PresetCache) -> None:
    attempt = FakeAttempt(*[fail(FailureKind.UNAVAILABLE)] * 3)
    with pytest.raises(HubError, match="Kaggle cannot be reached or does not respond: reported"):
        make(cache, attempt, attempts=3).fetch(HANDLE)
    assert attempt.timeouts_s == [100.0, 99.0, 97.0]
    assert cache.find(HANDLE) is None


@pytest.mark.parametrize(("timeout_s", "attempts"), [(1.0, 1), (1.5, 2), (3.5, 3)])
def test_no_attempt_begins_after_the_deadline(cache: PresetCache, timeout_s: float, attempts: int) -> None:
    attempt = FakeAttempt(*[fail(FailureKind.UNAVAILABLE)] * 9)
    with pytest.raises(HubError):
        make(cache, attempt, timeout_s=timeout_s, attempts=9).fetch(HANDLE)
    assert len(attempt.timeouts_s) == attempts


@pytest.mark.parametrize(("asked_s", "attempts"), [(30.0, 2), (31.0, 1)])
def test_a_busy_hub_is_waited_for_as_it_asks_within_reason(cache: PresetCache, asked_s: float, attempts: int) -> None:
    attempt = FakeAttempt(fail(FailureKind.BUSY, asked_s), fail(FailureKind.FORBIDDEN))
    with pytest.raises(HubError):
        make(cache, attempt).fetch(HANDLE)
    assert len(attempt.timeouts_s) == attempts


@pytest.mark.parametrize(
    "kind", [FailureKind.NOT_FOUND, FailureKind.FORBIDDEN, FailureKind.REJECTED, FailureKind.CRASHED]
)
def test_a_permanent_failure_is_not_retried(cache: PresetCache, kind: FailureKind) -> None:
    attempt = FakeAttempt(fail(kind))
    with pytest.raises(HubError, match="reported") as caught:
        make(cache, attempt).fetch(HANDLE)
    assert not caught.value.outage
    assert len(attempt.timeouts_s) == 1


@pytest.mark.parametrize("kind", FailureKind)
def test_every_failure_is_one_line_that_names_the_preset(cache: PresetCache, kind: FailureKind) -> None:
    with pytest.raises(HubError, match=f"^{HANDLE}: ") as caught:
        make(cache, FakeAttempt(fail(kind)), attempts=1).fetch(HANDLE)
    assert "\n" not in str(caught.value)
    assert "{" not in str(caught.value)


def test_a_newest_version_that_is_there_is_not_fetched_again(cache: PresetCache) -> None:
    unchanged = FakeAttempt(succeed, lambda: Fetched("2", "fake 1", {}))
    fetcher = make(cache, unchanged)
    assert fetcher.fetch(MOVING) == fetcher.fetch(MOVING) == cache.folder(HANDLE)
    assert unchanged.had == ["", "2"]


def test_two_that_fetch_the_same_fetch_it_once(cache: PresetCache) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slowly() -> Fetched:
        began.set()
        go_on.wait()
        return succeed()

    first = threading.Thread(target=make(cache, FakeAttempt(slowly)).fetch, args=(HANDLE,))
    first.start()
    began.wait()
    idle = FakeAttempt()
    second = threading.Thread(target=make(cache, idle).fetch, args=(HANDLE,))
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert cache.find(HANDLE) is not None
    assert idle.timeouts_s == []


def test_one_that_waits_for_another_fails_in_time(cache: PresetCache) -> None:
    with (
        cache.lock(HANDLE, 1.0),
        pytest.raises(PresetError, match=r"another process has been fetching it for 0\.01 s"),
    ):
        make(cache, FakeAttempt(), timeout_s=0.01).fetch(HANDLE)


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PresetError, match=r"^hub\.cache_dir must be a writable folder"):
        make(PresetCache(tmp_path / "file"), FakeAttempt()).fetch(HANDLE)


def test_a_preset_is_replaced_whole(cache: PresetCache) -> None:
    folder = make(cache, FakeAttempt(succeed)).fetch(HANDLE)
    cache.remove(folder)
    assert cache.find(HANDLE) is None
    assert make(cache, FakeAttempt(succeed)).fetch(HANDLE) == folder
    assert (folder / "config.json").read_bytes() == (GOLDEN / "below" / "config.json").read_bytes()


def test_folders_that_are_no_presets_are_passed_over(cache: PresetCache) -> None:
    folder = make(cache, FakeAttempt(succeed)).fetch(HANDLE)
    stranger = cache.root / "hf" / "a" / "b" / "c"
    stranger.mkdir(parents=True)
    (stranger / MANIFEST_FILE).write_text("{}")
    assert list(cache.all()) == [(HANDLE, folder)]
