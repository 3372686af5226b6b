"""A lean load generator: `python -m benchmarks.load rest|grpc --port …` prints one line of JSON.

Closed loop: each client sends its next request when it has the answer to the one before. What is sent is built
before the clock starts, and of an answer no more is read than its status and its end, so that one core of
generator can load one core of service. Run it as a process of its own, pinned to another core than the service;
`generator_cpu` near 1 means that the generator was the limit and not the service.

A request is a JSON body of `POST /v1/encode`. REST sends it as it is (to any `--path`: other services have other
ones), gRPC sends the `EncodeRequest` of its `token_ids` and `outputs`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np
import uvloop

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers

ENCODE_PATH: Final = "/v1/encode"
ENCODE_METHOD: Final = "/electra.v1.EncoderService/Encode"
TIMEOUT_S: Final = 60.0
"""How long an answer may take on gRPC, before it counts as an error."""
HEAD_END: Final = b"\r\n\r\n"
HTTP_OK: Final = "200"


@dataclass(frozen=True, slots=True)
class Payload:
    """One request, ready to be sent.

    Attributes:
        data: The bytes: a whole HTTP request, or a gRPC message.
        sequences: How many rows it holds.
    """

    data: bytes
    sequences: int


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to do.

    Attributes:
        transport: `rest` or `grpc`.
        host: Where the service is.
        port: Likewise.
        clients: How many requests are in flight.
        connections: On gRPC, how many connections the clients share; on REST each client has its own.
        warm_up_s: Seconds of load before anything is counted.
        seconds: Seconds that are counted.
        server_pid: The service's process, where it is on this machine and its CPU time should be told.
    """

    transport: str
    host: str
    port: int
    clients: int
    connections: int
    warm_up_s: float
    seconds: float
    server_pid: int | None = None


@dataclass(slots=True)
class Tally:
    """What came back, written by the clients while `open`.

    Attributes:
        latencies_s: Of answered requests, in order of their answers.
        sequences: Rows of answered requests.
        errors: Other outcomes, by HTTP status or gRPC code.
    """

    open: bool = False
    stopped: bool = False
    latencies_s: list[float] = field(default_factory=list)
    sequences: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def answered(self, seconds: float, sequences: int) -> None:
        """Counts an answer."""
        if self.open:
            self.latencies_s.append(seconds)
            self.sequences += sequences

    def failed(self, code: str) -> None:
        """Counts anything else, whenever it comes."""
        self.errors[code] += 1


def run_load(plan: LoadPlan, payloads: Sequence[Payload]) -> dict[str, Any]:
    """Loads the service and returns the figures.

    Args:
        plan: How much, where and for how long.
        payloads: What the clients send, taking turns; from `payloads_of`.

    Returns:
        What `summarize` makes of it.
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
    """Seconds: of the wall clock, of this process' CPU time, of the service's."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float

    @classmethod
    def read(cls, plan: LoadPlan) -> _Meter:
        server_s = math.nan if plan.server_pid is None else _cpu_seconds(plan.server_pid)
        return cls(time.perf_counter(), time.process_time(), server_s)

    def __sub__(self, began: _Meter) -> _Meter:
        return _Meter(self.wall_s - began.wall_s, self.cpu_s - began.cpu_s, self.server_cpu_s - began.server_cpu_s)


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads, from Linux' proc(5)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def summarize(plan: LoadPlan, tally: Tally, spent: _Meter) -> dict[str, Any]:
    """The figures: rates per second, latencies in milliseconds, CPU time in microseconds."""
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
    """Builds what is sent.

    Args:
        bodies: JSON objects with `token_ids`, or with `text`, which gRPC does not take here.
        transport: `rest` or `grpc`.
        path: Where REST posts them.
    """
    build = _grpc_message if transport == "grpc" else _http_request
    return [Payload(build(body, path), _sequences(json.loads(body))) for body in bodies]


def uniform_body(rows: int, length: int, **fields: object) -> bytes:
    """The body of a request for `rows` sequences of `length` ids."""
    ids = (np.arange(rows * length) % 30_000 + 1).reshape(rows, length).tolist()
    return json.dumps({"token_ids": ids, **fields}, separators=(",", ":")).encode()


def _sequences(body: dict[str, Any]) -> int:
    rows = body.get("token_ids", body.get("text"))
    return len(rows) if isinstance(rows, list) else 1


def _http_request(body: bytes, path: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + HEAD_END + body


def _grpc_message(body: bytes, _: str) -> bytes:
    fields = json.loads(body)
    tensors = [from_integers(np.array(row, np.int32)) for row in fields["token_ids"]]
    outputs = [pb.Output.Value(f"OUTPUT_{name.removesuffix('_output').upper()}") for name in fields.get("outputs", ())]
    return pb.EncodeRequest(tokens=pb.TokenInput(token_ids=tensors), outputs=outputs).SerializeToString()


def _turns(payloads: Sequence[Payload], client: int, clients: int) -> Iterator[Payload]:
    """The payloads in order for ever, each client beginning at another one."""
    first = client * len(payloads) // clients
    return (payloads[(first + turn) % len(payloads)] for turn in count())


class HttpClient(asyncio.Protocol):
    """One client on one HTTP/1.1 connection.

    Args:
        turns: What to send.
        tally: Where answers are counted.
        done: Set when the client has stopped.
    """

    def __init__(self, turns: Iterator[Payload], tally: Tally, done: asyncio.Future[None]) -> None:
        self._turns = turns
        self._tally = tally
        self._done = done
        self._transport: asyncio.Transport
        self._answer = b""
        self._body_end: int | None = None
        self._current: Payload
        self._sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        """Sends the first request."""
        self._transport = transport
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Ends the client; before `stopped` that is an error."""
        if not self._done.done():
            self._tally.failed("connection lost")
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Looks whether the answer is complete."""
        self._answer = self._answer + data if self._answer else data
        if self._body_end is None:
            self._read_head()
        if self._complete():
            self._finish()

    def _read_head(self) -> None:
        end = self._answer.find(HEAD_END)
        if end < 0:
            return
        head = self._answer[:end].lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        self._body_end = end + len(HEAD_END) + int(rest.split(b"\r\n", 1)[0]) if found else -1

    def _complete(self) -> bool:
        if self._body_end is None:
            return False
        if self._body_end < 0:  # chunked
            return self._answer.endswith(b"\r\n0\r\n\r\n")
        return len(self._answer) >= self._body_end

    def _finish(self) -> None:
        status = self._answer[9:12].decode()
        if status == HTTP_OK:
            self._tally.answered(time.perf_counter() - self._sent_at, self._current.sequences)
        else:
            self._tally.failed(status)
        self._send()

    def _send(self) -> None:
        if self._tally.stopped:
            self._done.set_result(None)
            self._transport.close()
            return
        self._answer, self._body_end = b"", None
        self._current = next(self._turns)
        self._sent_at = time.perf_counter()
        self._transport.write(self._current.data)


async def _start_rest(plan: LoadPlan, payloads: Sequence[Payload], tally: Tally) -> list[asyncio.Future[None]]:
    loop = asyncio.get_running_loop()
    done: list[asyncio.Future[None]] = [loop.create_future() for _ in range(plan.clients)]
    for client in range(plan.clients):
        turns = _turns(payloads, client, plan.clients)
        await loop.create_connection(
            lambda turns=turns, client=client: HttpClient(turns, tally, done[client]),  # type: ignore[misc]
            plan.host,
            plan.port,
        )
    return done


async def _start_grpc(plan: LoadPlan, payloads: Sequence[Payload], tally: Tally) -> list[asyncio.Task[None]]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [grpc.aio.insecure_channel(f"{plan.host}:{plan.port}", options) for _ in range(plan.connections)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    return [
        asyncio.create_task(_call_grpc(channels[client % len(channels)], _turns(payloads, client, plan.clients), tally))
        for client in range(plan.clients)
    ]


async def _call_grpc(channel: grpc.aio.Channel, turns: Iterator[Payload], tally: Tally) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENCODE_METHOD)
    while not tally.stopped:
        payload = next(turns)
        sent_at = time.perf_counter()
        try:
            await call(payload.data, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            tally.failed(error.code().name)
        else:
            tally.answered(time.perf_counter() - sent_at, payload.sequences)


def main(argv: Sequence[str] | None = None) -> None:
    """Loads a service and prints the figures."""
    flags = _parser().parse_args(argv)
    plan = LoadPlan(
        transport=flags.transport,
        host=flags.host,
        port=flags.port,
        clients=flags.clients,
        connections=min(flags.connections, flags.clients),
        warm_up_s=flags.warm_up_s,
        seconds=flags.seconds,
        server_pid=flags.server_pid,
    )
    figures = run_load(plan, payloads_of(_bodies(flags), flags.transport, path=flags.path))
    sys.stdout.write(json.dumps(figures) + "\n")


def _bodies(flags: argparse.Namespace) -> list[bytes]:
    if flags.bodies is not None:
        return [line for line in Path(flags.bodies).read_bytes().splitlines() if line]
    return [
        uniform_body(flags.rows, flags.length, outputs=flags.outputs.split(","), encoding_format=flags.encoding_format)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=("rest", "grpc"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default=ENCODE_PATH, help="where REST posts (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--connections", type=int, default=8, help="on gRPC (default: %(default)s)")
    parser.add_argument("--warm-up-s", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--server-pid", type=int, help="tells the CPU time that the service took for each request")
    parser.add_argument("--bodies", help="file of JSON bodies, one a line, instead of --rows and --length")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--outputs", default="pooled_output", help="comma-separated (default: %(default)s)")
    parser.add_argument("--encoding-format", default="float", choices=("float", "base64"))
    return parser


if __name__ == "__main__":
    main()
