"""One client that sends a hundred times what each other does: they hardly notice, and only it is refused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from electra_serve.tensors import BatchShape
from tests.integration.process import ServiceProcess
from tests.load.callers import OK, Endpoint
from tests.load.conftest import Report
from tests.load.open_loop import OpenLoop, Outcome, Plan, Stage, percentile_s
from tests.load.script import Script
from tests.load.stand_in import stand_in

LENGTH: Final = 32
BATCH: Final = BatchShape(4, 64)
"""Eight sequences fill it."""
SCRIPT: Final = Script(batch_s=0.02, position_s=0.04 / BATCH.positions)
CAPACITY: Final = SCRIPT.capacity(BATCH, LENGTH)
OTHERS: Final = 20
LIGHT: Final = 0.6 * CAPACITY / OTHERS
"""What each of the others sends: together 60 % of the capacity. With much less, nobody waits for anybody, and what they
see alone is a batch of one; a batch that is under way when they come is then already more than twice that."""
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
    """Seconds that the others are alone, and then again beside the heavy client."""

    seconds: float


SCALES: Final = [
    pytest.param(Scale(3.0), id="short"),
    pytest.param(Scale(60.0), id="long", marks=pytest.mark.long),
]
RATIO: Final = 2.0
"""Of the others' p99 beside the heavy client to theirs alone, at most."""


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
        ends = Endpoint.both(process.rest_port, process.grpc_port)
        others = [Endpoint(ends[i % 2].transport, ends[i % 2].port, api_key=_key(f"other-{i}")) for i in range(OTHERS)]
        heavy = [Endpoint(end.transport, end.port, api_key=_key("heavy")) for end in ends]
        _check(process, others, heavy, scale, report)


def _key(name: str) -> str:
    """A key as long as keys must be."""
    return f"{name}-".ljust(40, "x")


def _check(
    process: ServiceProcess, others: Sequence[Endpoint], heavy: Sequence[Endpoint], scale: Scale, report: Report
) -> None:
    begins_s = time.monotonic() + 2.0  # by then the senders have started
    stages = (Stage(OTHERS * LIGHT, scale.seconds),) * 2
    plans = (
        Plan(tuple(others), stages, begins_s, LENGTH),
        Plan(tuple(heavy), (Stage(HEAVY, scale.seconds),), begins_s + scale.seconds, LENGTH, first=8_000_000),
    )
    with OpenLoop.start(*plans) as loops:
        light, heaped = (loop.outcomes() for loop in loops)
    alone, beside = ([outcome for outcome in light if outcome.stage == stage] for stage in (0, 1))
    ratio = percentile_s(beside, 99) / percentile_s(alone, 99)
    report(
        f"{OTHERS} clients at {LIGHT:.1f}/s: p99 {_ms(alone)} alone, {_ms(beside)} beside one at {HEAVY:.0f}/s "
        f"({ratio:.2f}×); refused: {_refused(beside)} of theirs, {_refused(heaped)} of {len(heaped)} of its"
    )
    assert {outcome.code for outcome in light} == {OK}, "nobody is refused because of another"
    assert {outcome.code for outcome in heaped} == {OK, "overloaded"}
    report.promise(ratio <= RATIO, f"the others' p99 is at most {RATIO:g} times what it is alone")


def _ms(outcomes: Sequence[Outcome]) -> str:
    return f"{percentile_s(outcomes, 99) * 1e3:.0f} ms"


def _refused(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.code != OK for outcome in outcomes)
