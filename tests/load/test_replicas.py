"""Three replicas behind a real HTTP/2 proxy: one is stopped, one is killed, both start again, and the load goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import OK, Endpoint, Outcome
from benchmarks.load.open_loop import Plan, Stage, open_loops, percentile_s
from benchmarks.stand_in.script import Script
from electra_serve.server.lifecycle import EXIT_OK
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape
from tests.load.payload import numbered
from tests.load.proxy import Ports, check, configuration, needs_haproxy
from tests.load.replicas import Replica, replicas_behind_proxy
from tests.waiting import wait_until

pytestmark = needs_haproxy

SCRIPT: Final = Script(batch_s=0.04, position_s=2e-5)
"""Long enough for some requests to be in flight at any time."""
DRAIN: Final = ("--lifecycle.drain_delay_s=2",)
LENGTH: Final = 32
RATE: Final = 120.0
SECONDS: Final = 30.0
LEAD_S: Final = 2.0
"""Time for the load's process to start."""
NOTICED_S: Final = 0.1
"""Tolerance of the time of the kill: the proxy may forward a request at the same moment."""


def test_haproxy_takes_the_configuration_without_a_warning(tmp_path: Path) -> None:
    assert check(configuration(Ports.free(), [Ports.free() for _ in range(3)]), tmp_path) == ""


@pytest.mark.long
def test_one_is_stopped_and_one_is_killed_under_load(tmp_path: Path, report: Report) -> None:
    with replicas_behind_proxy(tmp_path, 3, SCRIPT, *DRAIN) as (front, replicas):
        begins_s = time.monotonic() + LEAD_S
        plan = Plan(
            Endpoint.both(front.rest, front.grpc), (Stage(RATE, SECONDS),), begins_s, partial(numbered, length=LENGTH)
        )
        with open_loops(plan) as (loop,):
            _wait_for(begins_s + 0.1 * SECONDS)
            _stop_and_start(replicas[0])
            _wait_for(begins_s + 0.6 * SECONDS)
            killed_s = _kill_and_start(replicas[1])
            (outcomes,) = loop.result()
        failed = [outcome for outcome in outcomes if outcome.code != OK]
        in_flight = [outcome for outcome in failed if _was_in_flight(outcome, killed_s)]
        answered = [gauge(scrape(replica.process), "electra_requests_total") for replica in replicas]
    report(
        f"{len(outcomes)} requests in {SECONDS:g} s, REST and gRPC in turn: {len(failed)} failed, {len(in_flight)} of "
        f"them in flight at the kill ({_codes(failed)}); p50 {_ms(outcomes, 50)} ms, p99 {_ms(outcomes, 99)} ms; "
        f"responses of each since its last start: {', '.join(f'{number:g}' for number in answered)}"
    )
    assert [outcome for outcome in failed if outcome not in in_flight] == []
    assert min(answered) > 0


def _stop_and_start(replica: Replica) -> None:
    replica.process.terminate()
    assert replica.process.wait() == EXIT_OK
    replica.start()


def _kill_and_start(replica: Replica) -> float:
    wait_until(lambda: gauge(scrape(replica.process), "electra_requests_in_flight") > 1)
    killed_s = time.monotonic()
    replica.process.popen.kill()
    replica.process.wait()
    replica.start()
    return killed_s


def _was_in_flight(outcome: Outcome, killed_s: float) -> bool:
    return outcome.sent_s <= killed_s + NOTICED_S and outcome.ended_s >= killed_s


def _wait_for(when_s: float) -> None:
    time.sleep(max(when_s - time.monotonic(), 0.0))


def _codes(outcomes: Sequence[Outcome]) -> str:
    return (
        ", ".join(f"{number} {code}" for code, number in Counter(outcome.code for outcome in outcomes).items()) or "-"
    )


def _ms(outcomes: Sequence[Outcome], percent: float) -> str:
    return f"{percentile_s(outcomes, percent) * 1e3:.0f}"
