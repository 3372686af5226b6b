"""Callers who leave: their rows leave the queue, and those who stay get exactly their own answers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import pytest

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from tests.integration.process import ServiceProcess
from tests.load.callers import HOST, OK, Endpoint
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape, wait_at_rest
from tests.load.payload import Payload, number_head, numbered
from tests.load.record import reached_sequences, read_record
from tests.load.script import SLOW, Script
from tests.load.stand_in import stand_in
from tests.load.until import until, until_gauge

LENGTH: Final = 16
POSITIONS: Final = 8 * LENGTH
"""Of a batch: eight sequences fill it."""
SCRIPT: Final = Script(batch_s=0.01, position_s=0.02 / POSITIONS)
LONGEST_S: Final = 0.3
"""Leavers leave after up to so long: before, while and after their turn comes."""
LEAVERS: Final = 24
"""At a time; the queue is some batches deep."""
STAYERS: Final = 8
PER_STREAM: Final = 4
ENCODE: Final = "/electra.v1.EncoderService/Encode"
ENCODE_STREAM: Final = "/electra.v1.EncoderService/EncodeStream"

Leave = Callable[[Payload, float], Awaitable[None]]
"""Sends a request and leaves after so many seconds."""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServiceProcess]:
    script = Script(batch_s=SCRIPT.batch_s, position_s=SCRIPT.position_s, record=str(tmp_path / "record"))
    with stand_in(tmp_path, script, f"--batching.max_batch_tokens={POSITIONS}") as started:
        yield started


@pytest.mark.parametrize(
    "cancels", [pytest.param(200, id="short"), pytest.param(2000, id="long", marks=pytest.mark.long)]
)
async def test_cancels_and_disconnects(cancels: int, process: ServiceProcess, report: Report) -> None:
    """So many over REST (with more requests behind, too), unary gRPC and streams, at random, among callers who stay."""
    async with grpc.aio.insecure_channel(process.target) as channel:
        ways: dict[str, Leave] = {
            "rest": lambda payload, after_s: _leave_rest(process, payload, after_s),
            "pipelined": lambda payload, after_s: _leave_pipelined(process, payload, after_s),
            "unary": lambda payload, after_s: _leave_unary(channel, payload, after_s),
            "stream": lambda payload, after_s: _leave_stream(channel, payload, after_s),
        }
        left, stayed = await _run(process, ways, cancels)
    wait_at_rest(process)
    assert set(stayed) == {OK}
    counted = gauge(scrape(process), "electra_requests_total")
    report(
        f"{sum(left.values())} left ({dict(left)}), {stayed[OK]} neighbours answered exactly, gauges at 0, "
        f"{counted:.0f} requests counted"
    )
    assert process.complaints == []


async def test_a_cancelled_row_beside_live_ones_hurts_nobody(process: ServiceProcess, tmp_path: Path) -> None:
    """MLServer's adaptive batcher hangs the other rows of a batch when one is cancelled."""
    rest, other = (end.caller() for end in Endpoint.both(process.rest_port, process.grpc_port))
    record = tmp_path / "record"
    # Two hold the engine for a quarter of a second, so that the others meet in the queue; the third holds their batch.
    slow = [Payload((number_head(i) + (SLOW,) * more,)) for i, more in enumerate((497, 497, LENGTH - 3))]
    async with grpc.aio.insecure_channel(process.target) as channel, asyncio.TaskGroup() as group:
        first = [group.create_task(rest.ask(payload)) for payload in slow[:2]]  # one runs, and one is packed behind it
        await until_gauge(process, "electra_running_sequences", 2)
        payloads = [slow[2], *(numbered(i, LENGTH) for i in range(3, 8))]
        live = [group.create_task((rest, other)[i % 2].ask(payload)) for i, payload in enumerate(payloads)]
        encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENCODE)
        unary = encode(numbered(100, LENGTH).message().SerializeToString())
        writer = await _post(process, numbered(101, LENGTH))
        await until(lambda: number_head(100) in reached_sequences(record))
        unary.cancel()
        writer.transport.abort()
    await asyncio.gather(rest.close(), other.close())
    assert {task.result().code for task in (*first, *live)} == {OK}
    wait_at_rest(process)
    (batch,) = [batch for batch in read_record(record) if number_head(100) in batch.sequences]
    assert {number_head(i) for i in (*range(2, 8), 101)} <= set(batch.sequences), "all were to be in one batch"


async def _run(process: ServiceProcess, ways: dict[str, Leave], cancels: int) -> tuple[Counter[str], Counter[str]]:
    """Leaves so often, and tells how often over which way, and what those who stayed got."""
    dice, numbers = random.Random(0), count()
    left: Counter[str] = Counter()
    stayed: Counter[str] = Counter()

    async def keep_leaving() -> None:
        while sum(left.values()) < cancels:
            way = dice.choice(list(ways))
            left[way] += 1
            await ways[way](numbered(next(numbers), LENGTH), dice.uniform(0, LONGEST_S))

    async def keep_asking(endpoint: Endpoint) -> None:
        caller = endpoint.caller()
        while sum(left.values()) < cancels:
            stayed[(await caller.ask(numbered(next(numbers), dice.randint(3, LENGTH)))).code] += 1
        await caller.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(LEAVERS):
            group.create_task(keep_leaving())
        for endpoint in Endpoint.both(process.rest_port, process.grpc_port) * (STAYERS // 2):
            group.create_task(keep_asking(endpoint))
    return left, stayed


async def _leave_rest(process: ServiceProcess, payload: Payload, after_s: float) -> None:
    writer = await _post(process, payload)
    await asyncio.sleep(after_s)
    writer.transport.abort()


async def _post(process: ServiceProcess, payload: Payload, times: int = 1) -> asyncio.StreamWriter:
    """Sends a request, once or more often, over a connection of its own."""
    _, writer = await asyncio.open_connection(HOST, process.rest_port)
    writer.write(_request(payload) * times)
    return writer


def _request(payload: Payload) -> bytes:
    body = payload.rest()
    head = f"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def _leave_pipelined(process: ServiceProcess, payload: Payload, after_s: float) -> None:
    """Leaves in one connection a running request, with dropped ones that came with it and after it."""
    writer = await _post(process, payload, times=2)
    await asyncio.sleep(after_s / 2)
    writer.write(_request(payload))
    await asyncio.sleep(after_s / 2)
    writer.transport.abort()


async def _leave_unary(channel: grpc.aio.Channel, payload: Payload, after_s: float) -> None:
    encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENCODE)
    call = encode(payload.message().SerializeToString())
    await asyncio.sleep(after_s)
    call.cancel()


async def _leave_stream(channel: grpc.aio.Channel, payload: Payload, after_s: float) -> None:
    """Several requests on one call, which ends while some are answered and some are not."""

    async def requests() -> AsyncIterator[bytes]:
        for i in range(PER_STREAM):
            yield pb.EncodeStreamRequest(request=payload.message(f"r{i}")).SerializeToString()

    stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ENCODE_STREAM)
    call = stream(requests())
    await asyncio.sleep(after_s)
    call.cancel()
