"""The gRPC clients against the real server over a fake service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import structlog
from structlog.testing import LogCapture

from electra_serve import errors
from electra_serve.api.grpc.server import GrpcServer
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.client import AsyncGrpcElectraClient, GrpcElectraClient, RetryPolicy, TransportError
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.request_context import Priority
from electra_serve.tensors import Output, TextInput, Truncation
from tests.fakes import connection_table, transit_budget
from tests.unit.api.grpc.conftest import MAX_SEQUENCES, SETTINGS, Running, observer
from tests.waiting import until

KEY = "shop-0123456789abcdef"
ONCE = RetryPolicy(max_attempts=1)
QUICKLY = RetryPolicy(max_attempts=3, first_wait_s=0.0)


async def test_the_blocking_client_encodes_and_lists_models(running: Running) -> None:
    def use() -> None:
        with GrpcElectraClient(f"127.0.0.1:{running.port}") as client:
            encoded = client.encode(token_ids=[[1, 2], [3]], outputs=["sequence_output", "cls_output"])
            assert encoded.sequence_output is not None
            assert [row.tolist() for row in encoded.sequence_output] == [[[1.0] * 4, [2.0] * 4], [[3.0] * 4]]
            np.testing.assert_array_equal(encoded.cls_output, [[1.0] * 4, [3.0] * 4])
            assert [model.name for model in client.models()] == ["tiny", "big"]

    await asyncio.to_thread(use)


async def test_what_the_caller_says_reaches_the_service(running: Running) -> None:
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}") as client:
        await client.encode(
            text="a", model="tiny", outputs=["mean_output"], truncate=True, timeout_s=30, priority="high"
        )
        assert [model.state for model in await client.models()] == ["ready", "loading"]
    [seen] = running.service.requests
    assert seen.input == TextInput(("a",))
    assert (seen.model, seen.outputs, seen.truncation) == ("tiny", frozenset({Output.MEAN}), Truncation.LONGEST_FIRST)
    assert seen.context.priority is Priority.HIGH
    assert seen.context.timeout_s is not None
    assert 20 < seen.context.timeout_s <= 31


async def test_half_a_surrogate_pair_arrives_as_the_replacement_character(running: Running) -> None:
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}") as client:
        await client.encode(text=["cut \ude00 emoji", ("whole \U0001f600", "\ud83d")])
    assert running.service.requests[0].input == TextInput(("cut \ufffd emoji", ("whole \U0001f600", "\ufffd")))


async def test_an_error_comes_back_as_itself(running: Running) -> None:
    async def full(_: EncodeRequest) -> None:
        raise errors.Overloaded("full", retry_after_s=0.25)

    running.service.before = full
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}", retry=ONCE) as client:
        with pytest.raises(errors.Overloaded, match="full") as caught:
            await client.encode(token_ids=[[1]])
    assert caught.value.retry_after_s == 0.25


@pytest.mark.parametrize(("failures", "succeeds"), [(2, True), (3, False)])
async def test_what_passes_by_itself_is_tried_again(running: Running, failures: int, succeeds: bool) -> None:
    async def full_at_first(_: EncodeRequest) -> None:
        if len(running.service.requests) <= failures:
            raise errors.Overloaded("full", retry_after_s=0.0)

    running.service.before = full_at_first
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}", retry=QUICKLY) as client:
        outcome = await asyncio.gather(client.encode(token_ids=[[1]]), return_exceptions=True)
    assert isinstance(outcome[0], errors.Overloaded) != succeeds
    assert len(running.service.requests) == 3


async def test_what_does_not_pass_is_not_tried_again(running: Running) -> None:
    async def invalid(_: EncodeRequest) -> None:
        raise errors.InvalidInput("no")

    running.service.before = invalid
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}", retry=QUICKLY) as client:
        with pytest.raises(errors.InvalidInput):
            await client.encode(token_ids=[[1]])
    assert len(running.service.requests) == 1


async def test_a_call_ends_with_its_time(running: Running) -> None:
    never = asyncio.Event()
    running.service.before = lambda _: never.wait()
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}") as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.encode(token_ids=[[1]], timeout_s=0.05)


async def test_cancelling_a_call_withdraws_it(running: Running) -> None:
    never = asyncio.Event()
    running.service.before = lambda _: never.wait()
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}") as client:
        call = asyncio.create_task(client.encode(token_ids=[[1]]))
        await until(lambda: len(running.service.requests) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: running.service.cancelled == 1)


async def test_no_server_is_a_transport_error(running: Running) -> None:
    await running.server.stop(0)
    async with AsyncGrpcElectraClient(f"127.0.0.1:{running.port}", retry=ONCE) as client:
        with pytest.raises(TransportError, match="UNAVAILABLE"):
            await client.encode(token_ids=[[1]])
        with pytest.raises(TransportError):
            await client.models()


async def test_a_key_goes_with_every_call_and_none_by_itself(running: Running, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    keys = KeyRing(tmp_path / "keys", structlog.wrap_logger(None, [LogCapture()]))
    server = GrpcServer(
        running.service,
        SETTINGS,
        observer(),
        max_sequences=MAX_SEQUENCES,
        budget=transit_budget(),
        connections=connection_table(),
        authenticator=Authenticator(keys),
    )
    target = f"127.0.0.1:{await server.start()}"
    async with AsyncGrpcElectraClient(target, retry=ONCE, api_key=KEY) as client:
        assert (await client.encode(token_ids=[[1]])).tokens == 1
        assert len(await client.models()) == 2
    async with AsyncGrpcElectraClient(target, retry=ONCE) as client:
        for call in (client.encode(token_ids=[[1]]), client.models()):
            with pytest.raises(errors.Unauthenticated):
                await call
    await server.stop(0)


async def test_the_blocking_client_embeds_and_reranks(running: Running) -> None:
    def use() -> None:
        with GrpcElectraClient(f"127.0.0.1:{running.port}") as client:
            assert client.embed(["a", "b"]).embeddings.tolist() == [[97.0] * 4, [98.0] * 4]
            assert [document.index for document in client.rerank("q", ["a", "bb"], top_n=1).results] == [1]

    await asyncio.to_thread(use)
    assert running.service.reranked[0].input == TextInput((("q", "a"), ("q", "bb")))
