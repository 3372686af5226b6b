"""One client sends a hundred times as much as each other one, and only its requests are rejected."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import OK, Endpoint, Outcome
from benchmarks.load.open_loop import Plan, Stage, open_loops, percentile_s
from benchmarks.stand_in.script import Script
from electra_serve.tensors import BatchShape
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.payload import numbered
from tests.load.stand_in import stand_in

LENGTH: Final = 32
BATCH: Final = BatchShape(4, 64)
"""Eight sequences fill it."""
SCRIPT: Final = Script(batch_s=0.02, position_s=0.04 / BATCH.positions)
CAPACITY: Final = SCRIPT.capacity(BATCH, LENGTH)
OTHERS: Final = 20
LIGHT: Final = 0.6 * CAPACITY / OTHERS
"""Requests per second of each other client: together 60 % of the capacity. With much less, each would have a batch of
its own when alone, and a running batch would already more than double its latency."""
HEAVY: Final = 100 * LIGHT
"""Three times the capacity, from one client."""
QUEUE: Final = 256
FLAGS: Final = (
    f"--batching.max_batch_tokens={BATCH.positions}",
    f"--batching.max_queue_sequences={QUEUE}",
    f"--limits.max_sequences={QUEUE}",
)


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds that the others are alone, and then again next to the heavy client."""

    seconds: float


SCALES: Final = [
    pytest.param(Scale(3.0), id="short"),
    pytest.param(Scale(60.0), id="long", marks=pytest.mark.long),
]
RATIO: Final = 2.0
"""Largest ratio of the others' p99 next to the heavy client to theirs alone."""


@pytest.mark.parametrize("scale", SCALES)
def test_one_heavy_client_by_peer_address(scale: Scale, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT, *FLAGS) as process:
        others = [Endpoint("rest", process.rest_port, source=f"127.0.0.{i}") for i in range(2, 2 + OTHERS)]
        heavy = [Endpoint("rest", process.rest_port)]
        _check(process, others, heavy, scale, report)


@pytest.mark.parametrize("scale", SCALES)
def test_one_heavy_client_by_api_key(scale: Scale, tmp_path: Path, report: Report) -> None:
    """All from one address, over both transports."""
    names = ["heavy", *(f"other-{i}" for i in range(OTHERS))]
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name}:{_key(name)}\n" for name in names))
    keys.chmod(0o600)
    with stand_in(tmp_path, SCRIPT, *FLAGS, f"--security.api_keys_file={keys}") as process:
        ends = process.endpoints
        others = [Endpoint(ends[i % 2].transport, ends[i % 2].port, api_key=_key(f"other-{i}")) for i in range(OTHERS)]
        heavy = [Endpoint(end.transport, end.port, api_key=_key("heavy")) for end in ends]
        _check(process, others, heavy, scale, report)


def _key(name: str) -> str:
    """Makes a key of a valid length."""
    return f"{name}-".ljust(40, "x")


def _check(
    process: ServiceProcess, others: Sequence[Endpoint], heavy: Sequence[Endpoint], scale: Scale, report: Report
) -> None:
    begins_s = time.monotonic() + 2.0  # the senders start meanwhile
    stages = (Stage(OTHERS * LIGHT, scale.seconds),) * 2
    make = partial(numbered, length=LENGTH)
    plans = (
        Plan(tuple(others), stages, begins_s, make),
        Plan(tuple(heavy), (Stage(HEAVY, scale.seconds),), begins_s + scale.seconds, make, first=8_000_000),
    )
    with open_loops(*plans) as (light, greedy):
        (alone, together), (heaped,) = light.result(), greedy.result()
    ratio = percentile_s(together, 99) / percentile_s(alone, 99)
    report(
        f"{OTHERS} clients at {LIGHT:.1f}/s: p99 {_ms(alone)} alone, {_ms(together)} next to one at "
        f"{HEAVY:.0f}/s ({ratio:.2f}×); rejected: {_rejected(together)} of theirs, "
        f"{_rejected(heaped)} of its {len(heaped)}"
    )
    assert {outcome.code for outcome in (*alone, *together)} == {OK}, "no client is rejected because of another"
    assert {outcome.code for outcome in heaped} == {OK, "overloaded"}
    report.promise(ratio <= RATIO, f"the others' p99 is at most {RATIO:g} times what it is alone")


def _ms(outcomes: Sequence[Outcome]) -> str:
    return f"{percentile_s(outcomes, 99) * 1e3:.0f} ms"


def _rejected(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.code != OK for outcome in outcomes)
