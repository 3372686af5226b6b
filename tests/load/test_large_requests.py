"""One client sends large requests over 64 connections: probes, rejections and other clients do not wait for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import httpx
import numpy as np
import orjson
import pytest

from benchmarks.load.clients import CHANNEL_OPTIONS, ENCODE_METHOD, OK, Endpoint
from benchmarks.stand_in.script import Script
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers
from electra_serve.server.lifecycle import EXIT_OK
from electra_serve.settings.schema import RestSettings
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.flood import CONNECTIONS, flood
from tests.load.growth import resident_bytes
from tests.load.payload import numbered
from tests.load.stand_in import stand_in
from tests.load.worst_inputs import GROUPS, MESSAGE_BYTES

SCRIPT: Final = Script(batch_s=0.002, position_s=1e-7)
HOSTILE_KEY: Final = "hostile-key-0123456789"
OTHER_KEY: Final = "other-key-0123456789"
EVERY_S: Final = 0.02
STARTED_S: Final = 3.0
MARGIN_S: Final = 1.0
MAX_GROWTH_BYTES: Final = 400_000_000
LIVEZ_P99_S: Final = 0.1
REJECTION_P99_S: Final = 0.05
BODY_BYTES: Final = RestSettings().max_body_bytes


def ids(size: int) -> bytes:
    """A body of one row of ids."""
    return b'{"token_ids":[[' + b"1," * ((size - 20) // 2) + b"1]]}"


def filled(before: bytes, piece: bytes, after: bytes) -> bytes:
    """A body of the largest size."""
    return before + piece * ((BODY_BYTES - len(before) - len(after)) // len(piece)) + after


def most_ids() -> bytes:
    """A body of the most ids that a request may have."""
    rows = {"token_ids": [[7] * 512] * 256, "segment_ids": [[0] * 512] * 256, "padding_mask": [[1] * 512] * 256}
    return orjson.dumps(rows | {"outputs": ["mean_output"]})


def one_tensor(*shape: int) -> bytes:
    """A message of one tensor."""
    tensor = from_integers(np.full(shape, 7, np.int32))
    return pb.EncodeRequest(tokens=pb.TokenInput(token_ids=[tensor]), outputs=[pb.OUTPUT_MEAN]).SerializeToString()


LONG_FLOODS: Final = {
    "rest, 60 KB of ids": ids(60_000),
    "rest, 70 KB of ids": ids(70_000),
    "rest, 256 KB of ids": ids(2**18),
    "rest, 2 MB of ids": ids(BODY_BYTES),
    "rest, the most ids": most_ids(),
    "rest, 2 MB of strings": filled(b'{"text":[""', b',"["', b"]}"),
    "rest, 2 MB of half pairs": filled(b'{"model":"', rb"\ud800", b'"}'),
    "grpc, 4 MB in one row": one_tensor((MESSAGE_BYTES - 100) // 4),
    "grpc, 12 KB of fields": b"\x12\x00" * 6200,
    "grpc, 4 MB of groups": GROUPS * (MESSAGE_BYTES // 4 - 16),
    "health, 4 MB of zeros": bytes(MESSAGE_BYTES - 64),
}
SHORT_FLOODS: Final = ("rest, 2 MB of ids", "grpc, 4 MB in one row")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServiceProcess]:
    """At default settings, with keys: a rejection for a wrong one needs nothing but the head."""
    keys = tmp_path / "keys"
    keys.write_text(f"hostile:{HOSTILE_KEY}\nother:{OTHER_KEY}\n")
    with stand_in(tmp_path, SCRIPT, f"--security.api_keys_file={keys}", "--log.requests=false") as started:
        yield started


@dataclass(slots=True)
class Times:
    """Seconds from requests to responses."""

    livez: list[float] = field(default_factory=list)
    rest_rejections: list[float] = field(default_factory=list)
    grpc_rejections: list[float] = field(default_factory=list)
    other_client: list[float] = field(default_factory=list)

    def p99_s(self, name: str) -> float:
        """The 99th percentile."""
        return float(np.percentile(getattr(self, name), 99))

    def __str__(self) -> str:
        named = {name: getattr(self, name) for name in self.__slots__}
        return ", ".join(
            f"{name.replace('_', ' ')} {np.percentile(took, 50) * 1e3:.0f} / {np.percentile(took, 99) * 1e3:.0f} ms"
            for name, took in named.items()
        )


@pytest.mark.parametrize(
    ("floods", "seconds"),
    [
        pytest.param(SHORT_FLOODS, 1.0, id="short"),
        pytest.param(tuple(LONG_FLOODS), 10.0, id="long", marks=pytest.mark.long),
    ],
)
def test_large_requests(floods: tuple[str, ...], seconds: float, process: ServiceProcess, report: Report) -> None:
    before = resident_bytes(process)
    report(f"alone (p50 / p99): {asyncio.run(measure(process, seconds))}")
    for name in floods:
        transport = name.partition(",")[0]
        flooding_s = STARTED_S + seconds + MARGIN_S
        with flood(process, transport, LONG_FLOODS[name], seconds=flooding_s, api_key=HOSTILE_KEY) as figures:
            time.sleep(STARTED_S)
            times = asyncio.run(measure(process, seconds))
            grown = resident_bytes(process) - before
            assert not figures.done(), "the flood goes on"
        report(f"{CONNECTIONS} × {name}: {times}, memory +{grown / 1e6:.0f} MB")
        assert grown <= MAX_GROWTH_BYTES
        report.promise(times.p99_s("livez") <= LIVEZ_P99_S, f"{name}: the liveness probe does not wait")
        slowest_s = max(times.p99_s("rest_rejections"), times.p99_s("grpc_rejections"))
        report.promise(slowest_s <= REJECTION_P99_S, f"{name}: rejections do not wait")
    process.terminate()
    assert process.wait() == EXIT_OK
    assert process.complaints == []


async def measure(process: ServiceProcess, seconds: float) -> Times:
    """Sends requests of a probe, of clients without a key and of another client; checks each response."""
    times = Times()
    other = Endpoint("rest", process.rest_port, api_key=OTHER_KEY).client()
    async with (
        httpx.AsyncClient(base_url=process.url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client,
        grpc.aio.insecure_channel(process.target, CHANNEL_OPTIONS) as channel,
    ):
        encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENCODE_METHOD)

        async def probe() -> None:
            assert (await client.get("/livez")).status_code == 200

        async def ask_rest_without_key() -> None:
            assert (await client.post("/v1/encode", content=b"{}")).status_code == 401

        async def ask_grpc_without_key() -> None:
            with suppress(grpc.aio.AioRpcError):
                await encode(b"")
                pytest.fail("a call without a key gets a response")

        async def ask_as_another() -> None:
            assert (await other.ask(numbered(1, 16))).code == OK

        await asyncio.gather(
            _repeat(probe, times.livez, seconds),
            _repeat(ask_rest_without_key, times.rest_rejections, seconds),
            _repeat(ask_grpc_without_key, times.grpc_rejections, seconds),
            _repeat(ask_as_another, times.other_client, seconds),
        )
    await other.close()
    return times


async def _repeat(ask: Callable[[], Awaitable[None]], took: list[float], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.perf_counter()
        await ask()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(EVERY_S)
