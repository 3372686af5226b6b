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

from electra_serve.server.lifecycle import ENGINE_GRACE_S, EXIT_FORCED, EXIT_OK, SAME_SIGNAL_S
from tests.integration.load import Load
from tests.integration.process import ServiceProcess, wait_until
from tests.load.callers import ENCODE_METHOD
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape
from tests.load.http2 import Http2Client, message
from tests.load.payload import numbered
from tests.load.script import Script
from tests.load.stand_in import stand_in

SCRIPT: Final = Script(batch_s=0.01, position_s=0.00005)
WARM: Final = 3
"""Answers on each transport before the signal."""
LATEST_S: Final = 0.3
"""The signal comes up to so long after that, at any point of whatever is going on."""
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


def test_the_shortest_drain_limit_is_enough_where_nothing_is_in_flight(tmp_path: Path) -> None:
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
        told = time.monotonic()
        assert process.wait(ENDS_S) == EXIT_FORCED
        took_s = time.monotonic() - told
        report(
            f"exit {EXIT_FORCED} {took_s:.1f} s after a second SIGTERM while an engine of {STUCK.batch_s:g} s is closed"
        )
        report.promise(took_s < ENGINE_GRACE_S / 2, "a second SIGTERM does not wait for the engine")
        assert process.complaints == []


def _waiting(process: ServiceProcess) -> socket.socket:
    """A caller whose request the engine has begun."""
    body = numbered(1, 16).rest()
    head = (
        f"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", process.rest_port))
    connection.sendall(head.encode() + body)
    wait_until(lambda: gauge(scrape(process), "electra_running_sequences") == 1)
    return connection


def _waiting_over_grpc(process: ServiceProcess) -> closing[Http2Client]:
    """The same over gRPC."""
    client = Http2Client(process.grpc_port, source="127.0.0.1")
    client.open_call(1, ENCODE_METHOD)
    client.send(1, message(numbered(1, 16).message().SerializeToString()), end=True)
    wait_until(lambda: gauge(scrape(process), "electra_running_sequences") == 1)
    return closing(client)


def _terminate_once(folder: Path, after_s: float, *, drain_delay_s: float) -> Counter[str]:
    """Counts what the service says it answered, and what of that its callers did not get."""
    with stand_in(folder, SCRIPT, f"--lifecycle.drain_delay_s={drain_delay_s}") as process:
        with Load(process.url, process.target) as load:
            wait_until(lambda: min(load.answered("rest"), load.answered("grpc")) >= WARM)
            time.sleep(after_s)
            process.terminate()
            code = process.wait()
        finished = {str(event["request_id"]): event["code"] for event in process.events if event["event"] == "request"}
        accepted = {name for name, came_to in finished.items() if came_to == "ok"}
        assert (code, process.complaints) == (EXIT_OK, [])
        assert set(finished.values()) <= {"ok", "shutting_down"}
        assert load.outcomes() <= {"ok", "shutting_down", "unreachable"}
        assert load.names("ok") <= accepted
        assert load.names("unreachable").isdisjoint(finished.keys() - accepted)
        return Counter(ok=len(accepted), lost=len(accepted - load.names("ok")))
