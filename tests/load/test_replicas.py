"""Three instances behind a real HTTP/2 proxy: one is told to stop, one is killed, both come back, and load goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from electra_serve.server.lifecycle import EXIT_OK
from tests.integration.process import wait_until
from tests.load.callers import OK, Endpoint
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape
from tests.load.open_loop import OpenLoop, Outcome, Plan, Stage, percentile_s
from tests.load.proxy import Ports, check, configuration, needs_haproxy
from tests.load.replicas import Replica, replicas_behind_proxy
from tests.load.script import Script

pytestmark = needs_haproxy

SCRIPT: Final = Script(batch_s=0.04, position_s=2e-5)
"""Long enough for some requests to be in hand at any time."""
DRAIN: Final = ("--lifecycle.drain_delay_s=2",)
LENGTH: Final = 32
RATE: Final = 120.0
SECONDS: Final = 30.0
LEAD_S: Final = 2.0
"""For the callers' process to start."""
NOTICED_S: Final = 0.1
"""The proxy may hand on a request at the moment of the kill that this process notes down just before or after it."""


def test_haproxy_takes_the_configuration_without_a_warning(tmp_path: Path) -> None:
    assert check(configuration(Ports.free(), [Ports.free() for _ in range(3)]), tmp_path) == ""


@pytest.mark.long
def test_one_is_stopped_and_one_is_killed_under_load(tmp_path: Path, report: Report) -> None:
    with replicas_behind_proxy(tmp_path, 3, SCRIPT, *DRAIN) as (front, replicas):
        begins_s = time.monotonic() + LEAD_S
        plan = Plan(Endpoint.both(front.rest, front.grpc), (Stage(RATE, SECONDS),), begins_s, LENGTH)
        with OpenLoop.start(plan) as (loop,):
            _wait_for(begins_s + 0.1 * SECONDS)
            _stop_and_start(replicas[0])
            _wait_for(begins_s + 0.6 * SECONDS)
            killed_s = _kill_and_start(replicas[1])
            outcomes = loop.outcomes()
        failed = [outcome for outcome in outcomes if outcome.code != OK]
        in_hand = [outcome for outcome in failed if _was_in_hand(outcome, killed_s)]
        answered = [gauge(scrape(replica.process), "electra_requests_total") for replica in replicas]
    report(
        f"{len(outcomes)} requests in {SECONDS:g} s, REST and gRPC in turn: {len(failed)} failed, {len(in_hand)} of "
        f"them in hand at the kill ({_codes(failed)}); p50 {_ms(outcomes, 50)} ms, p99 {_ms(outcomes, 99)} ms; "
        f"answered by each since its last start: {', '.join(f'{number:g}' for number in answered)}"
    )
    assert [outcome for outcome in failed if outcome not in in_hand] == []
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


def _was_in_hand(outcome: Outcome, killed_s: float) -> bool:
    return outcome.sent_s <= killed_s + NOTICED_S and outcome.answered_s >= killed_s


def _wait_for(when_s: float) -> None:
    time.sleep(max(when_s - time.monotonic(), 0.0))


def _codes(outcomes: Sequence[Outcome]) -> str:
    return (
        ", ".join(f"{number} {code}" for code, number in Counter(outcome.code for outcome in outcomes).items()) or "-"
    )


def _ms(outcomes: Sequence[Outcome], percent: float) -> str:
    return f"{percentile_s(outcomes, percent) * 1e3:.0f}"
