"""SIGTERM under load, again and again: nothing that was accepted is lost, on either transport."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
import pytest

from benchmarks.load.clients import ENCODE_METHOD, OK, UNREACHABLE, BackgroundLoad
from benchmarks.load.http_connection import post_request
from benchmarks.stand_in.script import Script
from electra_serve.server.lifecycle import ENGINE_GRACE_S, EXIT_FORCED, EXIT_OK, SAME_SIGNAL_S
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape
from tests.load.http2 import Http2Client, message
from tests.load.payload import named_requests, numbered
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

SCRIPT: Final = Script(batch_s=0.01, position_s=0.00005)
CLIENTS: Final = 6
LENGTH: Final = 48
WARM: Final = 3
"""Responses on each transport before the signal."""
LATEST_S: Final = 0.3
"""Longest time after that until the signal."""
STUCK: Final = Script(batch_s=3.0)
"""Takes longer than the limit below."""
DRAIN_TIMEOUT_S: Final = 1
ENDS_S: Final = 20.0


@pytest.mark.parametrize("signals", [pytest.param(2, id="short"), pytest.param(50, id="long", marks=pytest.mark.long)])
def test_sigterms_under_load_lose_nothing(signals: int, tmp_path: Path, report: Report) -> None:
    dice = random.Random()
    totals: Counter[str] = Counter()
    for number in range(signals):
        folder = tmp_path / str(number)
        folder.mkdir()
        totals += _terminate_once(folder, dice.uniform(0, LATEST_S), drain_delay_s=dice.choice((0.0, 0.2)))
    report(f"{signals} SIGTERMs under load: {totals['ok']} accepted, {totals['lost']} lost, each exit {EXIT_OK}")
    assert totals["lost"] == 0


def test_the_shortest_drain_limit_is_enough_if_nothing_is_in_flight(tmp_path: Path) -> None:
    shortest = 1  # as of the settings
    with stand_in(tmp_path, SCRIPT, f"--lifecycle.drain_timeout_s={shortest}") as process:
        with httpx.Client() as kept:  # a connection that is kept alive
            assert kept.get(f"{process.url}/readyz").status_code == HTTPStatus.OK
            process.terminate()
            assert process.wait() == EXIT_OK
        assert process.complaints == []


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_the_drain_limit_ends_it(transport: str, tmp_path: Path, report: Report) -> None:
    waiting = _waiting if transport == "rest" else _waiting_over_grpc
    with stand_in(tmp_path, STUCK, f"--lifecycle.drain_timeout_s={DRAIN_TIMEOUT_S}") as process, waiting(process):
        process.terminate()
        began = time.monotonic()
        assert process.wait(ENDS_S) == EXIT_FORCED
        report(f"exit {EXIT_FORCED} {time.monotonic() - began:.1f} s after SIGTERM, of a limit of {DRAIN_TIMEOUT_S} s")
        assert process.complaints == []


def test_a_second_sigterm_ends_it(tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, STUCK) as process, _waiting(process):
        process.terminate()
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + SAME_SIGNAL_S + 0.1)
        assert process.popen.poll() is None
        process.terminate()
        assert process.wait(ENDS_S) == EXIT_FORCED
        report(
            f"exit {EXIT_FORCED} {time.monotonic() - began:.1f} s after the first SIGTERM, the second 1.1 s after it"
        )
        assert process.complaints == []


def test_a_second_sigterm_is_heard_while_engines_are_closed(tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, STUCK, f"--lifecycle.drain_timeout_s={DRAIN_TIMEOUT_S}") as process, _waiting(process):
        process.terminate()
        began = time.monotonic()
        wait_until(lambda: '"stopped"' in process.stderr)
        wait_until(lambda: time.monotonic() > began + SAME_SIGNAL_S + 0.1)
        process.terminate()
        again = time.monotonic()
        assert process.wait(ENDS_S) == EXIT_FORCED
        took_s = time.monotonic() - again
        report(
            f"exit {EXIT_FORCED} {took_s:.1f} s after a second SIGTERM while an engine of {STUCK.batch_s:g} s is closed"
        )
        report.promise(took_s < ENGINE_GRACE_S / 2, "a second SIGTERM does not wait for the engine")
        assert process.complaints == []


def _waiting(process: ServiceProcess) -> socket.socket:
    """Sends a request, and waits until the engine runs it."""
    connection = socket.create_connection(("127.0.0.1", process.rest_port))
    connection.sendall(post_request(numbered(1, 16).rest()))
    wait_until(lambda: gauge(scrape(process), "electra_running_sequences") == 1)
    return connection


def _waiting_over_grpc(process: ServiceProcess) -> closing[Http2Client]:
    """Does the same over gRPC."""
    client = Http2Client(process.grpc_port, source="127.0.0.1")
    client.open_call(1, ENCODE_METHOD)
    client.send(1, message(numbered(1, 16).grpc()), end=True)
    wait_until(lambda: gauge(scrape(process), "electra_running_sequences") == 1)
    return closing(client)


def _terminate_once(folder: Path, after_s: float, *, drain_delay_s: float) -> Counter[str]:
    """Counts requests that the service logged as served, and those of them without a response."""
    with stand_in(folder, SCRIPT, f"--lifecycle.drain_delay_s={drain_delay_s}") as process:
        with BackgroundLoad(process.endpoints, CLIENTS, named_requests(LENGTH)) as load:
            wait_until(lambda: min(load.answered(OK, transport=name) for name in ("rest", "grpc")) >= WARM)
            time.sleep(after_s)
            process.terminate()
            code = process.wait()
        finished = {str(event["request_id"]): event["code"] for event in process.events if event["event"] == "request"}
        accepted = {name for name, came_to in finished.items() if came_to == OK}
        assert (code, process.complaints) == (EXIT_OK, [])
        assert set(finished.values()) <= {"ok", "shutting_down"}
        assert load.codes() <= {OK, "shutting_down", UNREACHABLE}
        assert load.request_ids(OK) <= accepted
        assert load.request_ids(UNREACHABLE).isdisjoint(finished.keys() - accepted)
        return Counter(ok=len(accepted), lost=len(accepted - load.request_ids(OK)))
