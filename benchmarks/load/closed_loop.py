"""Closed loop that counts and times: each client sends its next request when it has the last response.

Requests are built before the clock starts, and only the status and the end of a response are read. `generator_cpu` near
1 means that the generator was the limit and not the service.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np
import uvloop

from benchmarks.load.clients import CHANNEL_OPTIONS, ENCODE_METHOD, HOST
from benchmarks.load.http_connection import ENCODE_PATH, HttpConnection, post_request
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers

TIMEOUT_S: Final = 60.0
"""Deadline of a gRPC request."""
RECONNECT_S: Final = 0.02
"""Pause before a client connects again."""
HTTP_OK: Final = "200"
LOST: Final = "connection lost"


@dataclass(frozen=True, slots=True)
class Payload:
    """One request, ready to be sent.

    Attributes:
        data: A whole HTTP request, or a gRPC message.
        sequences: Number of its rows.
    """

    data: bytes
    sequences: int = 1


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Load on one service.

    Attributes:
        transport: `rest` or `grpc`.
        port: Port of the service.
        clients: Number of requests in flight.
        connections: Number of connections that gRPC clients share; each REST client has its own.
        warm_up_s: Seconds of load before anything is counted.
        seconds: Seconds that are counted.
        server_pid: The service's process on this machine, to report its CPU time.
        host: Host of the service.
        source: Address that REST connects from; "" for any.
        method: Method that gRPC calls.
        metadata: Metadata of each gRPC call.
    """

    transport: str
    port: int
    clients: int
    connections: int
    warm_up_s: float
    seconds: float
    server_pid: int | None = None
    host: str = HOST
    source: str = ""
    method: str = ENCODE_METHOD
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Tally:
    """Counts of all clients; responses count while it is `open`.

    Attributes:
        latencies_s: Latencies of responses, in their order.
        sequences: Rows of these responses.
        errors: Other outcomes, by HTTP status or gRPC code.
    """

    open: bool = False
    stopped: bool = False
    latencies_s: list[float] = field(default_factory=list)
    sequences: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def succeeded(self, seconds: float, sequences: int) -> None:
        """Counts a response."""
        if self.open:
            self.latencies_s.append(seconds)
            self.sequences += sequences

    def failed(self, code: str) -> None:
        """Counts any other outcome, at any time."""
        self.errors[code] += 1


@contextmanager
def background_load(plan: LoadPlan, payloads: Sequence[Payload]) -> Iterator[Future[dict[str, Any]]]:
    """Runs `run_load` in a process of its own, which the end of the context waits for."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool.submit(run_load, plan, payloads)


def run_load(plan: LoadPlan, payloads: Sequence[Payload]) -> dict[str, Any]:
    """Loads the service and returns the figures.

    Args:
        plan: Extent and target of the load.
        payloads: Requests that the clients send in turn; see `payloads_of`.

    Returns:
        See `summarize`.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(plan, payloads))


async def _run(plan: LoadPlan, payloads: Sequence[Payload]) -> dict[str, Any]:
    tally = Tally()
    gc.collect()
    gc.freeze()
    start = _start_rest if plan.transport == "rest" else _start_grpc
    clients = await start(plan, payloads, tally)
    await asyncio.sleep(plan.warm_up_s)
    tally.open, began = True, _Meter.read(plan)
    await asyncio.sleep(plan.seconds)
    tally.open = False
    spent = _Meter.read(plan) - began
    tally.stopped = True
    await asyncio.wait(clients, timeout=TIMEOUT_S)
    return summarize(plan, tally, spent)


@dataclass(frozen=True, slots=True)
class _Meter:
    """Seconds of the wall clock, and of CPU time of this process and of the service."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float

    @classmethod
    def read(cls, plan: LoadPlan) -> _Meter:
        server_s = math.nan if plan.server_pid is None else cpu_seconds(plan.server_pid)
        return cls(time.perf_counter(), time.process_time(), server_s)

    def __sub__(self, began: _Meter) -> _Meter:
        return _Meter(self.wall_s - began.wall_s, self.cpu_s - began.cpu_s, self.server_cpu_s - began.server_cpu_s)


def cpu_seconds(pid: int) -> float:
    """Returns user and system time of a process with all its threads, from Linux' proc(5)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def summarize(plan: LoadPlan, tally: Tally, spent: _Meter) -> dict[str, Any]:
    """Returns rates per second, latencies in milliseconds and CPU time in microseconds."""
    latencies_ms = np.array(tally.latencies_s) * 1e3
    percentiles = np.percentile(latencies_ms, (50, 90, 99)).tolist() if len(latencies_ms) else [None] * 3
    return {
        "transport": plan.transport,
        "clients": plan.clients,
        "connections": plan.clients if plan.transport == "rest" else plan.connections,
        "seconds": spent.wall_s,
        "requests": len(latencies_ms),
        "errors": dict(tally.errors),
        "requests_per_s": len(latencies_ms) / spent.wall_s,
        "sequences_per_s": tally.sequences / spent.wall_s,
        **dict(zip(("p50_ms", "p90_ms", "p99_ms"), percentiles, strict=True)),
        "mean_ms": float(latencies_ms.mean()) if len(latencies_ms) else None,
        "generator_cpu": spent.cpu_s / spent.wall_s,
        "server_cpu_us": None if plan.server_pid is None else spent.server_cpu_s * 1e6 / max(len(latencies_ms), 1),
    }


def payloads_of(bodies: Sequence[bytes], transport: str, *, path: str = ENCODE_PATH) -> list[Payload]:
    """Builds requests.

    Args:
        bodies: JSON objects with `token_ids`, or with `text`, which gRPC does not support here.
        transport: `rest` or `grpc`.
        path: Path of REST requests.
    """
    build = _grpc_message if transport == "grpc" else post_request
    return [Payload(build(body, path), _sequences(json.loads(body))) for body in bodies]


def uniform_body(rows: int, length: int, **fields: object) -> bytes:
    """Returns the body of a request for `rows` sequences of `length` ids."""
    ids = (np.arange(rows * length) % 30_000 + 1).reshape(rows, length).tolist()
    return json.dumps({"token_ids": ids, **fields}, separators=(",", ":")).encode()


def _sequences(body: dict[str, Any]) -> int:
    rows = body.get("token_ids", body.get("text"))
    return len(rows) if isinstance(rows, list) else 1


def _grpc_message(body: bytes, _: str) -> bytes:
    fields = json.loads(body)
    tensors = [from_integers(np.array(row, np.int32)) for row in fields["token_ids"]]
    outputs = [pb.Output.Value(f"OUTPUT_{name.removesuffix('_output').upper()}") for name in fields.get("outputs", ())]
    return pb.EncodeRequest(tokens=pb.TokenInput(token_ids=tensors), outputs=outputs).SerializeToString()


def _turns(payloads: Sequence[Payload], client: int, clients: int) -> Iterator[Payload]:
    """Repeats the payloads without end; each client begins at another one."""
    first = client * len(payloads) // clients
    return (payloads[(first + turn) % len(payloads)] for turn in count())


class _TimedConnection(HttpConnection):
    """Sends one request after the other.

    Args:
        turns: Requests to send.
        tally: Counts the responses.
        ended: Set when the connection has ended.
    """

    def __init__(self, turns: Iterator[Payload], tally: Tally, ended: asyncio.Future[None]) -> None:
        super().__init__()
        self._turns = turns
        self._tally = tally
        self._ended = ended
        self._current: Payload
        self._sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        if self.waiting:
            self._tally.failed(LOST)
        self._ended.set_result(None)

    def responded(self, response: bytes) -> None:
        status = response[9:12].decode()
        if status == HTTP_OK:
            self._tally.succeeded(time.perf_counter() - self._sent_at, self._current.sequences)
        else:
            self._tally.failed(status)
        if self._tally.stopped or self.closing:
            self.transport.close()
        else:
            self._send_next()

    def _send_next(self) -> None:
        self._current = next(self._turns)
        self._sent_at = time.perf_counter()
        self.send(self._current.data)


async def _start_rest(plan: LoadPlan, payloads: Sequence[Payload], tally: Tally) -> list[asyncio.Task[None]]:
    turns = (_turns(payloads, client, plan.clients) for client in range(plan.clients))
    return [asyncio.create_task(_keep_connected(plan, own, tally)) for own in turns]


async def _keep_connected(plan: LoadPlan, turns: Iterator[Payload], tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    while not tally.stopped:
        ended: asyncio.Future[None] = loop.create_future()
        try:
            await loop.create_connection(
                lambda ended=ended: _TimedConnection(turns, tally, ended),
                plan.host,
                plan.port,
                local_addr=(plan.source, 0) if plan.source else None,
            )
        except OSError:
            tally.failed(LOST)
            await asyncio.sleep(RECONNECT_S)
        else:
            await ended


async def _start_grpc(plan: LoadPlan, payloads: Sequence[Payload], tally: Tally) -> list[asyncio.Task[None]]:
    channels = [grpc.aio.insecure_channel(f"{plan.host}:{plan.port}", CHANNEL_OPTIONS) for _ in range(plan.connections)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    return [
        asyncio.create_task(
            _call(plan, channels[client % len(channels)], _turns(payloads, client, plan.clients), tally)
        )
        for client in range(plan.clients)
    ]


async def _call(plan: LoadPlan, channel: grpc.aio.Channel, turns: Iterator[Payload], tally: Tally) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(plan.method)
    while not tally.stopped:
        payload = next(turns)
        sent_at = time.perf_counter()
        try:
            await call(payload.data, timeout=TIMEOUT_S, metadata=plan.metadata or None)
        except grpc.aio.AioRpcError as error:
            tally.failed(error.code().name)
        else:
            tally.succeeded(time.perf_counter() - sent_at, payload.sequences)
