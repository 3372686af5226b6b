"""Clients that leave: their rows leave the queue, and other clients get exactly their own responses."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import pytest

from benchmarks.load.clients import ENCODE_METHOD, HOST, OK, closed_loop
from benchmarks.load.http_connection import post_request
from benchmarks.stand_in.record import reached_sequences, read_record
from benchmarks.stand_in.script import SLOW, Script
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from tests.integration.process import ServiceProcess
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape, until_gauge, wait_at_rest
from tests.load.payload import Payload, number_head, numbered
from tests.load.stand_in import stand_in
from tests.waiting import until

LENGTH: Final = 16
POSITIONS: Final = 8 * LENGTH
"""Of a batch: eight sequences fill it."""
SCRIPT: Final = Script(batch_s=0.01, position_s=0.02 / POSITIONS)
LONGEST_S: Final = 0.3
"""Longest time before a client leaves: its request is then queued, running or done."""
LEAVERS: Final = 24
"""Leaving clients at a time; the queue is some batches deep."""
STAYERS: Final = 8
PER_STREAM: Final = 4
ENCODE_STREAM: Final = f"{ENCODE_METHOD}Stream"

Leave = Callable[[Payload, float], Awaitable[None]]
"""Sends a request and leaves after some seconds."""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServiceProcess]:
    script = Script(batch_s=SCRIPT.batch_s, position_s=SCRIPT.position_s, record=str(tmp_path / "record"))
    with stand_in(tmp_path, script, f"--batching.max_batch_tokens={POSITIONS}") as started:
        yield started


@pytest.mark.parametrize(
    "cancels", [pytest.param(200, id="short"), pytest.param(2000, id="long", marks=pytest.mark.long)]
)
async def test_cancels_and_disconnects(cancels: int, process: ServiceProcess, report: Report) -> None:
    """Leaves REST (also with further requests sent), unary gRPC and streams at random, among clients that stay."""
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
        f"{sum(left.values())} left ({dict(left)}), {stayed[OK]} responses to other clients exact, gauges at 0, "
        f"{counted:.0f} requests counted"
    )
    assert process.complaints == []


async def test_a_cancelled_row_harms_no_row_of_its_batch(process: ServiceProcess, tmp_path: Path) -> None:
    """MLServer's adaptive batcher hangs the other rows of a batch when one is cancelled."""
    rest, other = (endpoint.client() for endpoint in process.endpoints)
    record = tmp_path / "record"
    # Two hold the engine for a quarter of a second, so that the others meet in the queue; the third holds their batch.
    slow = [Payload((number_head(i) + (SLOW,) * more,)) for i, more in enumerate((497, 497, LENGTH - 3))]
    async with grpc.aio.insecure_channel(process.target) as channel, asyncio.TaskGroup() as group:
        first = [group.create_task(rest.ask(payload)) for payload in slow[:2]]  # one runs, and one is packed behind it
        await until_gauge(process, "electra_running_sequences", 2)
        payloads = [slow[2], *(numbered(i, LENGTH) for i in range(3, 8))]
        live = [group.create_task((rest, other)[i % 2].ask(payload)) for i, payload in enumerate(payloads)]
        encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENCODE_METHOD)
        unary = encode(numbered(100, LENGTH).grpc())
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
    """Leaves `cancels` times; returns the number by way, and the codes of clients that stayed."""
    dice, numbers = random.Random(0), count()
    left: Counter[str] = Counter()

    async def keep_leaving() -> None:
        while sum(left.values()) < cancels:
            way = dice.choice(list(ways))
            left[way] += 1
            await ways[way](numbered(next(numbers), LENGTH), dice.uniform(0, LONGEST_S))

    async with asyncio.TaskGroup() as group:
        for _ in range(LEAVERS):
            group.create_task(keep_leaving())
        requests = (numbered(number, dice.randint(3, LENGTH)) for number in numbers)
        asked = takewhile(lambda _: sum(left.values()) < cancels, requests)
        staying = group.create_task(closed_loop(process.endpoints, STAYERS, asked))
    return left, Counter(outcome.code for outcome in staying.result())


async def _leave_rest(process: ServiceProcess, payload: Payload, after_s: float) -> None:
    writer = await _post(process, payload)
    await asyncio.sleep(after_s)
    writer.transport.abort()


async def _post(process: ServiceProcess, payload: Payload, times: int = 1) -> asyncio.StreamWriter:
    """Sends a request one or more times over a connection of its own."""
    _, writer = await asyncio.open_connection(HOST, process.rest_port)
    writer.write(post_request(payload.rest()) * times)
    return writer


async def _leave_pipelined(process: ServiceProcess, payload: Payload, after_s: float) -> None:
    """Leaves a running request and two that were pipelined after it."""
    writer = await _post(process, payload, times=2)
    await asyncio.sleep(after_s / 2)
    writer.write(post_request(payload.rest()))
    await asyncio.sleep(after_s / 2)
    writer.transport.abort()


async def _leave_unary(channel: grpc.aio.Channel, payload: Payload, after_s: float) -> None:
    encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENCODE_METHOD)
    call = encode(payload.grpc())
    await asyncio.sleep(after_s)
    call.cancel()


async def _leave_stream(channel: grpc.aio.Channel, payload: Payload, after_s: float) -> None:
    """Sends several requests on one call and cancels it between their responses."""

    async def requests() -> AsyncIterator[bytes]:
        for i in range(PER_STREAM):
            yield pb.EncodeStreamRequest(request=payload.message(f"r{i}")).SerializeToString()

    stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ENCODE_STREAM)
    call = stream(requests())
    await asyncio.sleep(after_s)
    call.cancel()
