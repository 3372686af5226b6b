"""Models are loaded, reloaded and unloaded under load, damaged ones among them, and no client notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Final

import httpx
import pytest

from benchmarks.load.clients import BackgroundLoad, Outcome
from tests.load.conftest import Report
from tests.load.growth import SPARE_DESCRIPTORS, SPARE_THREADS, Growth, Sample
from tests.load.probes import Probes
from tests.load.reload_stage import MODEL, VERSIONS, Stage, set_up
from tests.load.variants import CORRUPTIONS
from tests.load.versions import queries_to
from tests.waiting import wait_until

CLIENTS: Final = 4
EXTRA: Final = "extra"
BROKEN: Final = "broken"
ROUND: Final = (
    "reload", "load", "corrupt reload", "reload", "unload", "reload", "load", "corrupt load", "reload", "unload",
)  # fmt: skip
"""A tenth of the changes; a fifth of them to damaged presets."""


def test_ten_changes_under_load(tmp_path: Path, report: Report) -> None:
    with set_up(tmp_path) as stage:
        first, *_, last = run(stage, rounds=1, report=report)
    assert last.threads <= first.threads + SPARE_THREADS
    assert last.descriptors <= first.descriptors + SPARE_DESCRIPTORS


@pytest.mark.long
def test_a_hundred_changes_under_load(tmp_path: Path, report: Report) -> None:
    with set_up(tmp_path) as stage:
        samples = run(stage, rounds=10, report=report)
    assert Growth.over(samples).faults() == []


def run(stage: Stage, *, rounds: int, report: Report) -> list[Sample]:
    """Makes the changes, and samples the process whenever it serves the same models as at first."""
    changes, process = Changes(stage), stage.process
    probing = Probes(process)
    loading = BackgroundLoad(process.endpoints, CLIENTS, queries_to(MODEL, stage.expected), while_ok=False)
    samples: list[Sample] = []
    with probing as probes, loading as load:
        for change in ROUND * rounds:
            before = len(load.outcomes)
            wait_until(lambda before=before: len(load.outcomes) > before)  # type: ignore[misc]
            changes.make(change)
            if EXTRA not in stage.operator.names():
                samples.append(Sample.of(process.popen.pid, compilations=0))
    responses = Counter((outcome.transport, outcome.code) for outcome in load.outcomes)
    report(figure(changes, load.outcomes, probes, samples))
    assert set(responses) == {(transport, version) for transport in ("rest", "grpc") for version in VERSIONS}
    assert probes.failures == []
    assert process.complaints == []
    process.terminate()
    assert process.wait() == 0
    return samples


def figure(changes: Changes, outcomes: Sequence[Outcome], probes: Probes, samples: list[Sample]) -> str:
    """Summarizes the run in a line."""
    made = ", ".join(f"{count} {change}" for change, count in changes.made.items())
    codes = Counter(f"{outcome.code} {outcome.transport}" for outcome in outcomes)
    responses = ", ".join(f"{count} {code}" for code, count in codes.items())
    seconds = [outcome.seconds for outcome in outcomes]
    first, last = samples[0], samples[-1]
    return (
        f"{changes.made.total()} changes ({made}): {len(probes.failures)} failed probes; "
        f"responses: {responses}, within {median(seconds) * 1e3:.0f} ms (median), "
        f"{max(seconds) * 1e3:.0f} ms (all); probes within {probes.slowest_s * 1e3:.0f} ms; "
        f"from the first change to the last {first.resident_bytes / 1e6:.0f} to {last.resident_bytes / 1e6:.0f} MB, "
        f"{first.threads:g} to {last.threads:g} threads, {first.descriptors:g} to {last.descriptors:g} descriptors"
    )


class Changes:
    """Makes changes over the admin API and checks its responses."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._versions = cycle(reversed(VERSIONS))
        self._corruptions = cycle(CORRUPTIONS)
        self.made: Counter[str] = Counter()

    def make(self, change: str) -> None:
        """Makes one and checks its result."""
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
        self._check_rejection(answer)
        after = self._stage.operator.status(MODEL)
        assert after == {**before, "reason": answer.json()["detail"]} | {"batch_shapes": after["batch_shapes"]}

    def _load_corrupt(self) -> None:
        answer = self._stage.operator.load(self._folder(next(self._corruptions)), BROKEN)
        self._check_rejection(answer)
        status = self._stage.operator.status(BROKEN)
        assert (status["state"], status["reason"]) == ("failed", answer.json()["detail"])

    @staticmethod
    def _check_rejection(answer: httpx.Response) -> None:
        assert (answer.status_code, answer.json()["code"]) == (422, "model_load_failed"), answer.text
        assert answer.json()["detail"].isprintable()

    def _folder(self, what: str) -> str:
        return str(self._stage.folders[what])

    def _metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self._stage.metrics_port}/metrics").text
