"""A mix of client behavior: ids and texts, all outputs, every transport, mistakes, short deadlines and cancellation."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

import grpc.aio
import httpx
import numpy as np

from benchmarks.load.clients import OK, WRONG
from benchmarks.stand_in.answers import known_answer
from benchmarks.stand_in.script import ORDINARY_IDS
from electra_serve.tensors import Output
from tests.contract.outcome import Outcome, Success
from tests.contract.query import Query
from tests.contract.read import STATUS_ONLY
from tests.contract.sides import GrpcSide, RestSide, Side, StreamSide
from tests.integration.process import ServiceProcess

CLIENTS: Final = 8
PATIENCE_S: Final = 60.0
LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
"""The default keeps up to twenty connections, which would look like growth of the service."""
PAUSE_S: Final = 0.02
"""Longest pause between a response and the next request."""
LEAVES: Final = 0.05
HURRIES: Final = 0.05
HURRY_S: Final = 0.005
CLIENTS_OWN: Final = "Internal error from Core"
"""Message of grpc's client if a deadline passes while it sends; the service does not count that request."""
EXPECTED: Final = {
    OK, "left", "invalid_input", "model_not_found", "payload_too_large", "deadline_exceeded", "overloaded",
}  # fmt: skip
WORDS: Final = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "naïve",
    "漢字",
    "supercalifragilistic",
)


def _ids(dice: random.Random) -> Query:
    rows = [_row(dice, dice.choice((4, 20, 60, 200))) for _ in range(dice.choice((1, 1, 1, 2, 5, 20)))]
    return Query(token_ids=rows, model=None, outputs=_outputs(dice))


def _texts(dice: random.Random) -> Query:
    texts = [" ".join(dice.choices(WORDS, k=dice.choice((3, 10, 100)))) for _ in range(dice.choice((1, 1, 3)))]
    return Query(text=texts, model=None, outputs=_outputs(dice), truncate=True)


def _mistake(dice: random.Random) -> Query:
    return dice.choice(
        (
            Query(token_ids=[[1, 8000]], model=None),
            Query(token_ids=[[1] * 600], model=None),
            Query(token_ids=[[1]] * 300, model=None),
            Query(token_ids=[[1]], model="another"),
            Query(token_ids=[[1, 2]], padding_mask=[[0, 0]], model=None),
        )
    )


MAKERS: Final[Sequence[Callable[[random.Random], Query]]] = (_ids, _ids, _ids, _texts, _texts, _mistake)


async def mixed_load(process: ServiceProcess, until_s: float, *, known: bool) -> Counter[str]:
    """Loads `process` until a time on the machine's monotonic clock.

    Args:
        process: The service.
        until_s: Time of the end.
        known: Responses must have the stand-in's outputs.

    Returns:
        Counts of requests by code.
    """
    codes: Counter[str] = Counter()
    async with _connected(process) as sides, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(_call(sides, random.Random(number), until_s, codes, known=known))
    return codes


@asynccontextmanager
async def _connected(process: ServiceProcess) -> AsyncIterator[Sequence[Side]]:
    options = [("grpc.max_receive_message_length", -1)]
    with (
        ThreadPoolExecutor(CLIENTS) as threads,
        grpc.insecure_channel(process.target, options) as blocking,
    ):
        async with (
            httpx.AsyncClient(base_url=process.url, timeout=PATIENCE_S, limits=LIMITS) as client,
            grpc.aio.insecure_channel(process.target, options) as channel,
        ):
            streams = StreamSide(blocking, threads)
            yield RestSide(client, "float"), RestSide(client, "base64"), GrpcSide(channel), streams


async def _call(
    sides: Sequence[Side], dice: random.Random, until_s: float, codes: Counter[str], *, known: bool
) -> None:
    while time.monotonic() < until_s:
        side, query = dice.choice(sides), dice.choice(MAKERS)(dice)
        sending = asyncio.create_task(side.send(side.render(query), HURRY_S if dice.random() < HURRIES else None))
        if dice.random() < LEAVES:
            await asyncio.sleep(dice.uniform(0, 2 * PAUSE_S))
            sending.cancel()
        (outcome,) = await asyncio.gather(sending, return_exceptions=True)
        codes[_code(query, outcome, known=known)] += 1
        await asyncio.sleep(dice.uniform(0, PAUSE_S))


def _code(query: Query, outcome: Outcome | BaseException, *, known: bool) -> str:
    if isinstance(outcome, asyncio.CancelledError):
        return "left"
    if isinstance(outcome, BaseException):
        return repr(outcome)
    if isinstance(outcome, Success):
        return WRONG if known and query.token_ids and not _is_right(query.token_ids, outcome) else OK
    if outcome.status == "DEADLINE_EXCEEDED" or outcome.message == CLIENTS_OWN:  # from gRPC itself, without a slug
        return "deadline_exceeded"
    return f"{outcome.status}: {outcome.message}" if outcome.code == STATUS_ONLY else outcome.code


def _is_right(token_ids: Sequence[Sequence[int]], success: Success) -> bool:
    return all(
        np.array_equal(got, known_answer(output, ids))
        for output, arrays in success.outputs.items()
        for got, ids in zip(arrays, token_ids, strict=True)
    )


def _row(dice: random.Random, length: int) -> list[int]:
    return dice.choices(ORDINARY_IDS, k=length)


def _outputs(dice: random.Random) -> list[Output]:
    return dice.sample(sorted(Output), k=dice.randint(1, len(Output)))
