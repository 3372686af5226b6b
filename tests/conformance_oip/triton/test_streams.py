"""Streams of tritonclient's gRPC clients: responses and errors of one do not disturb the others."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.conformance_clients.served import Served
from tests.conformance_oip.samples import ABSENT, ENCODER, IDS, TEXTS, check, expected, native_message, texts
from tests.conformance_oip.triton.clients import CLIENTS, authorized, id_of

REPEATS: Final = 5
GRPC: Final = CLIENTS[2]
AIO: Final = CLIENTS[3]

Responses = list[tuple[Any, Any]]


def requests() -> list[dict[str, Any]]:
    """Good requests with their ids, and one for a model that is absent."""
    good = [
        {"model_name": ENCODER, "inputs": [GRPC.input("token_ids", np.array([row]))], "request_id": f"row {number}"}
        for number, row in enumerate(IDS)
    ]
    text = {"model_name": ENCODER, "inputs": [GRPC.input("text", texts([TEXTS[0]]))], "request_id": "text"}
    bad = {"model_name": ABSENT, "inputs": good[0]["inputs"], "request_id": "bad"}
    return [*good * REPEATS, bad, text]


def in_one_stream(served: Served) -> Responses:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    sent = requests()
    with GRPC.module.InferenceServerClient(GRPC.address(served)) as client:
        client.start_stream(lambda result, error: done.put((result, error)), headers=authorized())
        for request in sent:
            client.async_stream_infer(**request)
        received = [done.get(timeout=60) for _ in sent]
        client.stop_stream()
    assert done.empty()
    return received


def in_one_asynchronous_stream(served: Served) -> Responses:
    async def send() -> AsyncIterator[dict[str, Any]]:
        for request in requests():
            yield request

    async def receive() -> Responses:
        async with AIO.module.InferenceServerClient(AIO.address(served)) as client:
            return [pair async for pair in client.stream_infer(send(), headers=authorized())]

    return asyncio.run(receive())


@pytest.mark.parametrize("run", [in_one_stream, in_one_asynchronous_stream], ids=["grpc", "grpc.aio"])
def test_streams(run: Any, served: Served) -> None:
    received: Responses = run(served)
    (error,) = [error for _, error in received if error is not None]
    assert native_message(served, model=ABSENT, token_ids=[[2, 3]]) in error.message()
    results = [result for result, error in received if error is None]
    assert sorted(map(id_of, results)) == sorted(
        request["request_id"] for request in requests() if request["model_name"] == ENCODER
    )
    for result in results:
        name, _, number = id_of(result).partition(" ")
        body: dict[str, Any] = {"text": [TEXTS[0]]} if name == "text" else {"token_ids": [IDS[int(number)]]}
        check(result.as_numpy("mean_output"), expected(served, "mean_output", **body))


def test_a_stream_needs_the_key(served: Served) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with GRPC.module.InferenceServerClient(GRPC.address(served)) as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        with contextlib.suppress(InferenceServerException):  # the stream may have ended before
            client.async_stream_infer(**requests()[0])
        _, error = done.get(timeout=60)
        client.stop_stream(cancel_requests=True)
    assert error.status() == "StatusCode.UNAUTHENTICATED"
