"""The real clients against fake hubs: fetched, rejected and damaged files, limits and messages."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.hubs.fetch import EXIT_ENDED
from electra_serve.presets.hubs.manifest import read_manifest
from electra_serve.presets.hubs.process import COMMAND
from tests.integration.hubs.conftest import PRESET, Case, Stack, environment_of
from tests.integration.hubs.server import Fault, body, cut, flip, status
from tests.waiting import wait_until


def rejection(stack: Stack, handle: str, case: Case, **limits: float) -> str:
    with pytest.raises(PresetError) as caught:
        stack.make(case.hub, **limits).find(handle, load_weights=True)
    message = str(caught.value)
    assert "\n" not in message
    assert list(stack.cache.all()) == []
    return message


def test_a_preset_is_fetched_with_a_manifest(stack: Stack, case: Case) -> None:
    preset = stack.make(case.hub).find(case.moving, load_weights=True)
    assert preset is not None
    assert preset.path is not None
    assert (preset.id, preset.source, preset.weights) == ("tiny_en", case.moving.partition(":")[0], "pretrained")
    manifest = read_manifest(preset.path)
    assert manifest.source == case.pinned
    assert set(manifest.files) == set(PRESET)
    assert {name: (preset.path / name).read_bytes() for name in manifest.files} == PRESET
    assert all((preset.path / name).is_symlink() for name in manifest.files)


def test_what_is_pinned_is_fetched_once(stack: Stack, case: Case) -> None:
    first = stack.make(case.hub).find(case.pinned, load_weights=True)
    asked = len(case.hub.requests)
    assert stack.make(case.hub).find(case.pinned, load_weights=True) == first
    assert len(case.hub.requests) == asked


def test_only_allow_listed_files_are_requested(stack: Stack, case: Case) -> None:
    stack.make(case.hub).find(case.pinned, load_weights=True)
    asked = str([(request.path, request.body) for request in case.hub.requests])
    assert "model.weights.h5" in asked
    assert not any(name in asked for name in ("pytorch_model.bin", "README", ".keras"))


@pytest.mark.parametrize("fault", [status(500), status(429, Retry_After="1")], ids=["500", "429"])
def test_a_hub_that_recovers_is_asked_again(stack: Stack, case: Case, fault: Fault) -> None:
    case.hub.spoil(case.weights, fault, times=1)
    assert stack.make(case.hub).find(case.pinned, load_weights=True) is not None


def test_a_slow_hub_is_waited_for(stack: Stack, case: Case) -> None:
    case.hub.spoil("model.weights.h5", lambda response: replace(response, pause=lambda: time.sleep(1.0)))
    assert stack.make(case.hub, stall_timeout_s=10.0).find(case.pinned, load_weights=True) is not None


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (403, " (HTTP 403): the repository is private, gated or missing; accept its terms"),
        (401, "(HTTP 401)"),
    ],
)
def test_a_gated_preset_says_what_to_do(stack: Stack, case: Case, code: int, says: str) -> None:
    case.hub.spoil("/", status(code))
    message = rejection(stack, case.pinned, case)
    assert says in message
    assert "_TOKEN" in message
    assert stack.waits == []


def test_a_busy_hub_is_not_waited_for_longer_than_is_useful(stack: Stack, case: Case) -> None:
    case.hub.spoil("/api/", status(429, Retry_After="3600"))
    assert "has received too many requests (HTTP 429): retry later" in rejection(stack, case.pinned, case)
    assert stack.waits == []


def test_a_hub_that_hangs_ends_the_attempt(stack: Stack, case: Case) -> None:
    case.hub.hang(case.weights)
    message = rejection(stack, case.pinned, case, attempts=1, stall_timeout_s=2.0)
    assert "cannot be reached or does not respond: no byte arrived for 2 s" in message


def test_a_fetch_ends_at_its_deadline(stack: Stack, case: Case) -> None:
    case.hub.hang("/api/")
    message = rejection(stack, case.pinned, case, attempts=1, timeout_s=2.0)
    assert "not done within 2 s" in message


def test_a_fetch_ends_at_its_size(stack: Stack, case: Case) -> None:
    case.hub.hang("model.weights.h5")
    assert "must have at most 100 bytes to fetch; it has more" in rejection(stack, case.pinned, case, max_bytes=100)


def test_a_byte_that_was_flipped_on_the_way_is_noticed(stack: Stack, case: Case) -> None:
    case.hub.spoil("model.weights.h5", flip)
    message = rejection(stack, case.pinned, case)
    assert "damaged file from" in message
    assert stack.waits == [1.0]


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>Sign in</html>", b'{"half":'], ids=["empty", "html", "cut"]
)
def test_what_is_not_the_file_is_rejected(stack: Stack, case: Case, content: bytes) -> None:
    case.hub.spoil("config.json", body(content))
    assert "config.json" in rejection(stack, case.pinned, case, attempts=1)


def test_a_file_that_is_cut_once_is_fetched_whole(stack: Stack, case: Case) -> None:
    case.hub.spoil("model.weights.h5", cut(5000), times=1)
    preset = stack.make(case.hub).find(case.pinned, load_weights=True)
    assert preset is not None
    assert preset.path is not None
    assert (preset.path / "model.weights.h5").read_bytes() == PRESET["model.weights.h5"]


def test_a_wrong_revision_is_not_found(stack: Stack, case: Case) -> None:
    wrong = f"{case.moving}/9" if case.moving.startswith("kaggle") else f"{case.moving}@{'0' * 40}"
    assert "not found on" in rejection(stack, wrong, case)


def test_a_preset_that_is_not_there(stack: Stack, case: Case) -> None:
    message = rejection(stack, case.moving.replace("tiny", "no"), case)
    assert "not found on" in message or "private, gated or missing" in message


def test_the_fetching_process_ends_with_its_parent(case: Case, tmp_path: Path) -> None:
    case.hub.hang("/api/")
    command = [*COMMAND, case.pinned, ""]
    environment = environment_of(tmp_path, case.hub)
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: bool(case.hub.requests))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == EXIT_ENDED
