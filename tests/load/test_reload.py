"""Models are loaded, reloaded and unloaded under load, damaged ones among them, and no caller notices."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Final

import httpx
import pytest

from tests.integration.process import wait_until
from tests.load.prober import Prober
from tests.load.reload_stage import MODEL, VERSIONS, Stage, set_up
from tests.load.variants import CORRUPTIONS
from tests.load.versions import Callers
from tests.load.vitals import Vitals

EXTRA: Final = "extra"
BROKEN: Final = "broken"
ROUND: Final = (
    "reload", "load", "corrupt reload", "reload", "unload", "reload", "load", "corrupt load", "reload", "unload",
)  # fmt: skip
"""A tenth of the changes; a fifth of them to damaged presets."""
MAX_GROWTH_MB: Final = 50.0
"""The same bound as the soak's, from the middle of the run to its end."""


def test_ten_changes_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with set_up(tmp_path) as stage:
        run(stage, rounds=1, capsys=capsys)


@pytest.mark.long
def test_a_hundred_changes_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with set_up(tmp_path) as stage:
        vitals = run(stage, rounds=10, capsys=capsys)
    middle = len(vitals) // 2
    growth_mb = median(look.memory_mb for look in vitals[-10:]) - median(
        look.memory_mb for look in vitals[middle:][:10]
    )
    tell(capsys, f"memory grew by {growth_mb:.1f} MB from the middle of the run to its end")
    assert growth_mb < MAX_GROWTH_MB


def run(stage: Stage, *, rounds: int, capsys: pytest.CaptureFixture[str]) -> list[Vitals]:
    """Makes the changes, and looks at the process whenever it serves what it did at first."""
    changes = Changes(stage)
    vitals: list[Vitals] = []
    process = stage.process
    probing = Prober(process.url, process.target)
    calling = Callers(process.url, process.target, model=MODEL, expected=stage.expected)
    with probing as prober, calling as callers:
        for change in ROUND * rounds:
            before = callers.answered
            wait_until(lambda before=before: callers.answered > before or bool(callers.errors))  # type: ignore[misc]
            changes.make(change)
            if EXTRA not in stage.operator.names():
                vitals.append(Vitals.of(process.popen.pid))
    report(callers, prober, changes, vitals, capsys)
    assert callers.errors == []
    assert set(callers.answers) == {(transport, version) for transport in ("rest", "grpc") for version in VERSIONS}
    assert set(prober.answers) == {("/livez", "200"), ("/readyz", "200"), ("grpc", "SERVING")}
    half = len(vitals) // 2
    for name in ("threads", "descriptors"):
        early, late = (max(getattr(look, name) for look in part) for part in (vitals[:half], vitals[half:]))
        assert late <= early, f"{name} grow"
    assert not [event for event in process.events if event["level"] == "critical"]
    assert process.complaints == []
    process.terminate()
    assert process.wait() == 0
    return vitals


class Changes:
    """Makes changes and checks what is answered.

    Args:
        stage: What is changed.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._versions = cycle(reversed(VERSIONS))
        self._corruptions = cycle(CORRUPTIONS)
        self.made: Counter[str] = Counter()

    def make(self, change: str) -> None:
        """Makes one; fails unless it comes to what it should."""
        {
            "reload": self._reload,
            "load": self._load,
            "unload": self._unload,
            "corrupt reload": self._reload_corrupt,
            "corrupt load": self._load_corrupt,
        }[change]()
        self.made[change] += 1

    def _reload(self) -> None:
        version = next(self._versions)
        answer = self._stage.operator.reload(MODEL, self._folder(version))
        assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (200, "ready", ""), answer.text
        assert answer.json()["preset"] == self._folder(version)

    def _load(self) -> None:
        answer = self._stage.operator.load(self._folder("new"), EXTRA)
        assert (answer.status_code, answer.json()["state"]) == (201, "ready"), answer.text
        assert f'electra_model_ready{{model="{EXTRA}"}} 1.0' in self._metrics()

    def _unload(self) -> None:
        assert self._stage.operator.unload(EXTRA).status_code == 204
        assert EXTRA not in self._stage.operator.names()
        assert EXTRA not in self._metrics()

    def _reload_corrupt(self) -> None:
        before = self._stage.operator.status(MODEL)
        answer = self._stage.operator.reload(MODEL, self._folder(next(self._corruptions)))
        self._check_refusal(answer)
        after = self._stage.operator.status(MODEL)
        assert after == {**before, "reason": answer.json()["detail"]} | {"cost": after["cost"]}

    def _load_corrupt(self) -> None:
        answer = self._stage.operator.load(self._folder(next(self._corruptions)), BROKEN)
        self._check_refusal(answer)
        status = self._stage.operator.status(BROKEN)
        assert (status["state"], status["reason"]) == ("failed", answer.json()["detail"])

    @staticmethod
    def _check_refusal(answer: httpx.Response) -> None:
        assert (answer.status_code, answer.json()["code"]) == (422, "model_load_failed"), answer.text
        assert answer.json()["detail"].isprintable()

    def _folder(self, what: str) -> str:
        return str(self._stage.folders[what])

    def _metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self._stage.metrics_port}/metrics").text


def report(
    callers: Callers, prober: Prober, changes: Changes, vitals: list[Vitals], capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the figures."""
    answers = ", ".join(
        f"{count} {version} over {transport}" for (transport, version), count in callers.answers.items()
    )
    made = ", ".join(f"{count} {change}" for change, count in changes.made.items())
    first, last = vitals[0], vitals[-1]
    tell(
        capsys,
        f"{changes.made.total()} changes under load ({made}): {len(callers.errors)} errors; {answers}\n"
        f"answers within {median(callers.seconds) * 1e3:.0f} ms (median), {max(callers.seconds) * 1e3:.0f} ms (all)\n"
        f"probes: {dict(prober.answers)}, a round of three within {prober.slowest_s * 1e3:.0f} ms\n"
        f"from the first unload to the last: {first.memory_mb:.0f} to {last.memory_mb:.0f} MB, "
        f"{first.threads} to {last.threads} threads, {first.descriptors} to {last.descriptors} descriptors",
    )


def tell(capsys: pytest.CaptureFixture[str], figures: str) -> None:
    """Prints figures, whether or not the test passes."""
    with capsys.disabled():
        sys.stdout.write(f"\n{figures}\n")
