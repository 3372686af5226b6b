"""`electra-serve presets …` as a user runs it, in a process of its own, against fake hubs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.hubs.manifest import MANIFEST_FILE
from tests.integration.hubs.conftest import HF_REPO, Case, environment_of
from tests.integration.hubs.huggingface import FakeHuggingFace
from tests.integration.hubs.server import FakeHub, status
from tests.integration.process import homeless, start
from tests.waiting import wait_until


class CommandLine:
    """Runs `electra-serve presets` with a cache of its own.

    Args:
        home: Folder of all its files.
        hubs: Which it can reach.
    """

    def __init__(self, home: Path, *hubs: FakeHub) -> None:
        self.environment = environment_of(home, *hubs) | {"ELECTRA_HUB__CACHE_DIR": str(home / "cache")}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "electra_serve", "presets", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )


def test_a_preset_is_pulled_shown_verified_and_listed(case: Case, tmp_path: Path) -> None:
    run = CommandLine(tmp_path, case.hub)
    pulled = run("pull", case.moving)
    assert (pulled.returncode, "Traceback" in pulled.stderr) == (0, False)
    folder, digest = pulled.stdout.splitlines()
    assert Path(folder, "model.weights.h5").is_file()
    shown = run("show", case.moving)
    assert digest.split() in [line.split() for line in shown.stdout.splitlines()]
    assert case.pinned in shown.stdout
    assert run("verify").stdout == f"{case.pinned}: intact\n"
    assert case.pinned in run("list").stdout


def test_a_user_without_a_home_fetches_into_the_folder_of_the_settings(case: Case, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    variables = CommandLine(tmp_path, case.hub).environment
    given = [f"{name}={value}" for name, value in variables.items() if name not in {"HOME", "PATH", "PYTHONPATH"}]
    command = [*homeless(), *given, sys.executable, "-m", "electra_serve", "presets", "pull", case.moving]
    pulled = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    assert (pulled.returncode, "Traceback" in pulled.stderr) == (0, False), pulled.stderr
    assert Path(pulled.stdout.splitlines()[0], "model.weights.h5").is_file()


def test_a_damaged_preset_is_reported_and_pulled_again(hf: FakeHuggingFace, tmp_path: Path) -> None:
    run = CommandLine(tmp_path, hf)
    handle = f"hf://{HF_REPO}"
    folder = Path(run("pull", handle).stdout.splitlines()[0])
    (folder / "config.json").write_text("{}")
    reported = run("verify", handle)
    assert reported.returncode == 1
    assert "config.json has 2 bytes, not" in reported.stdout
    (folder / MANIFEST_FILE).write_text("{}")
    assert run("verify").returncode == 1
    assert "damaged" in run("list").stdout
    assert run("pull", handle).returncode == 0
    assert run("verify", handle).returncode == 0


def test_a_failure_is_one_line(hf: FakeHuggingFace, tmp_path: Path) -> None:
    hf.spoil("/", status(403))
    failed = CommandLine(tmp_path, hf)("pull", f"hf://{HF_REPO}")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    line = failed.stderr.splitlines()[-1]  # after those about the progress
    assert line.startswith(f"electra-serve: hf://{HF_REPO}: access denied by the Hugging Face hub")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pull", "electra_demo"), "a preset to fetch must be a built-in id or a handle on a hub"),
        (("verify", "hf://org/never"), "cannot verify 'hf://org/never': not fetched"),
        (("show", "hf://org/never"), "not fetched; run `electra-serve presets pull hf://org/never`"),
        (("show", "nothing"), "preset must be a folder"),
        (("pull", "hf://org/never", "--hub.offline=true"), "hub.offline is set"),
        (("pull", "hf://org/never", "--hub.attempts=0"), "--hub.attempts must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    failed = CommandLine(tmp_path)(*arguments)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert says in line


def test_the_list_has_every_preset_with_its_size(tmp_path: Path) -> None:
    listed = CommandLine(tmp_path)("list").stdout
    for preset in CATALOG.values():
        (line,) = [line for line in listed.splitlines() if line.startswith(preset.id)]
        assert f"{preset.parameters:,}" in line
    assert "1,341" in listed


def test_a_built_in_preset_that_is_not_there_is_shown_all_the_same(tmp_path: Path) -> None:
    shown = CommandLine(tmp_path)("show", "electra_small_generator_en").stdout
    assert "kaggle://keras/electra/keras/electra_small_generator_uncased_en/2" in shown
    assert ["fetched", "no"] in [line.split() for line in shown.splitlines()]


def test_a_service_starts_from_a_hub_and_then_without_it(hf: FakeHuggingFace, tmp_path: Path) -> None:
    environment = CommandLine(tmp_path, hf).environment
    flags = (f"--models=hf://{HF_REPO}", "--log.format=json")
    with start(tmp_path, *flags, environment=environment) as process:
        process.wait_ready()
        process.terminate()
        assert process.wait() == 0
        assert any("preset fetched: hf://" in str(event["event"]) for event in process.events)
    asked = len(hf.requests)
    with start(tmp_path, *flags, "--hub.offline=true", environment=environment) as process:
        process.wait_ready()
    assert len(hf.requests) == asked


def test_a_signal_ends_a_fetch_that_hangs(hf: FakeHuggingFace, tmp_path: Path) -> None:
    hf.hang("model.weights.h5")
    environment = CommandLine(tmp_path, hf).environment
    with start(tmp_path, f"--models=hf://{HF_REPO}", environment=environment) as process:
        wait_until(lambda: bool(hf.paths("model.weights.h5")))
        process.terminate()
        assert process.wait(10) == 0
