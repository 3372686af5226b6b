"""Shutdown of the real process: accepted requests get responses on both transports, unless a second signal comes."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
import httpx

from benchmarks.load.clients import OK, UNREACHABLE, BackgroundLoad
from electra_serve.server.lifecycle import SAME_SIGNAL_S
from tests.integration.process import ServiceProcess, start
from tests.integration.standard import health_of
from tests.load.payload import named_requests
from tests.waiting import wait_until

WARM: Final = 20
"""Responses on each transport before the signal, so that it comes in the middle."""
CLIENTS: Final = 6
LENGTH: Final = 48
DRAIN_DELAY_S: Final = 2
FORCED_S: Final = 10.0
MARK: Final = "hunter2"
HALF_A_REQUEST: Final = (
    b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
    + MARK.encode()
)
IN_FLIGHT: Final = 'electra_requests_in_flight{transport="rest"} 1.0'


def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    with start(tmp_path, f"--lifecycle.drain_delay_s={DRAIN_DELAY_S}", "--log.format=json") as process:
        process.wait_ready()
        with BackgroundLoad(process.endpoints, CLIENTS, named_requests(LENGTH)) as load:
            wait_until(lambda: min(load.answered(OK, transport=name) for name in ("rest", "grpc")) >= WARM)
            process.terminate()
            assert_told_to_stay_away(process)
            for transport in ("rest", "grpc"):  # the delay is for clients that do not know of the drain yet
                before = load.answered(OK, transport=transport)
                wait_until(lambda name=transport, before=before: load.answered(OK, transport=name) > before)  # type: ignore[misc]
            code = process.wait()

        assert code == 0
        assert process.complaints == []
        finished = {event["request_id"]: event["code"] for event in process.events if event["event"] == "request"}
        assert {name for name, code in finished.items() if code == "ok"} == load.request_ids(OK)
        assert set(finished.values()) <= {"ok", "shutting_down"}
        assert load.codes() <= {OK, "shutting_down", UNREACHABLE}
        assert load.request_ids(UNREACHABLE).isdisjoint(finished)


def test_sigterm_completes_a_large_request_in_slices(tmp_path: Path) -> None:
    texts = ["The Rabbit was late for the Queen's game. " * 8] * 1500
    with start(tmp_path, "--log.format=json") as process, ThreadPoolExecutor(1) as pool:
        process.wait_ready()
        large = pool.submit(httpx.post, f"{process.url}/v1/embeddings", json={"input": texts}, timeout=60)
        computed = re.compile(r"electra_batch_sequences_count\{[^}]*\} [1-9]")
        wait_until(lambda: computed.search(httpx.get(f"{process.url}/metrics").text) is not None)
        process.terminate()
        wait_until(lambda: process.status("/readyz") != 200)
        assert not large.done(), "the signal comes in the middle"
        response = large.result()
        assert (response.status_code, len(response.json()["data"])) == (200, len(texts))
        assert process.wait() == 0


def assert_told_to_stay_away(process: ServiceProcess) -> None:
    """Fails unless readiness, but not liveness, ends on both transports."""
    wait_until(lambda: process.status("/readyz") == 503)
    assert process.status("/livez") == 200
    with grpc.insecure_channel(process.target) as channel:
        assert health_of(channel) == "NOT_SERVING"


def test_a_second_sigterm_aborts_requests_in_flight(tmp_path: Path) -> None:
    with start(tmp_path, "--log.format=json") as process:
        process.wait_ready()
        with socket.create_connection(("127.0.0.1", process.rest_port)) as slow:
            slow.sendall(HALF_A_REQUEST)
            wait_until(lambda: IN_FLIGHT in httpx.get(f"{process.url}/metrics").text)
            process.terminate()
            wait_until(lambda: process.status("/livez") is None)  # by now it has the first signal
            echo_until = time.monotonic() + SAME_SIGNAL_S
            wait_until(lambda: time.monotonic() > echo_until)
            assert process.popen.poll() is None, "the first signal waits for what is in flight"
            process.terminate()
            assert process.wait(FORCED_S) == 2
        assert process.complaints == []
        assert MARK not in process.stderr, "a traceback may be logged, but no body"
