"""Failures after validation are reported in the same way on every transport, and affect no other request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
import pytest

from electra_serve.batching.admission import SPREAD
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.encode import EncodeRequest, EncodeResult
from electra_serve.serving.request_context import RequestContext
from electra_serve.tensors import SLOT_POSITIONS, Batch, ModelOutput, Output, Outputs, TokenInput
from tests.contract.outcome import Rejection, rejected, succeeded
from tests.contract.query import Query
from tests.contract.sides import SIDES, SOCKET_SIDES, Side, connect
from tests.contract.stack import MAX_QUEUE_SEQUENCES, SECONDS_PER_POSITION, TINY, Stack, make_settings
from tests.fakes import FakeEngine
from tests.waiting import until

BAD_ID: Final = 13
GOOD: Final = Query(token_ids=[[1, 2]])
SECRET: Final = "the weights are at /secret"


class EmptyEngine(FakeEngine):
    """Returns results without the requested outputs: an internal fault, whatever the input."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        return ModelOutput()


def assert_reported(rejection: Rejection, side: Side, code: str, stack: Stack) -> None:
    """Fails unless the rejection is of that kind, has its status, and was counted."""
    assert rejection.code == code
    assert rejection.status == side.statuses.get(code)
    assert stack.counted(side.transport, code) == 1


async def hold(stack: Stack, waiting: int) -> list[asyncio.Task[EncodeResult]]:
    """Closes the engine's gate, keeps it busy, and has `waiting` more sequences in the queue."""
    stack.engine.gate.clear()
    tasks = []
    for running in (1, 2):
        tasks.append(_submit(stack))
        await until(lambda running=running: stack.gauge("electra_running_sequences") == running)  # type: ignore[misc]
    tasks += [_submit(stack, f"client {number}") for number in range(waiting)]
    await until(lambda: stack.gauge("electra_queued_sequences") == waiting)
    return tasks


def _submit(stack: Stack, client: str = "") -> asyncio.Task[EncodeResult]:
    request = EncodeRequest(TokenInput([np.array([1], np.int32)]), model=TINY, context=RequestContext(client=client))
    return asyncio.create_task(stack.service.encode(request))


@pytest.mark.parametrize("ids", [[[BAD_ID]], [[1], [BAD_ID], [2]]], ids=["alone", "among others"])
async def test_numbers_that_are_not_finite_are_an_error(
    side: Side, loaded: Stack, ids: Sequence[Sequence[int]]
) -> None:
    loaded.engine.poison = {BAD_ID}
    rejection = rejected(await side.send(side.render(Query(token_ids=ids))))
    assert_reported(rejection, side, "engine_failure", loaded)
    assert rejection.retry_after_s is None


async def test_a_row_that_fails_the_engine_fails_alone(side: Side, loaded: Stack) -> None:
    def fail(batch: Batch) -> None:
        if BAD_ID in batch.token_ids:
            raise RuntimeError(SECRET)

    loaded.engine.fail = fail
    loaded.engine.gate.clear()
    sending = [asyncio.create_task(side.send(side.render(Query(token_ids=[[i]])))) for i in (1, 2, BAD_ID, 3)]
    await until(lambda: loaded.gauge("electra_running_sequences") + loaded.gauge("electra_queued_sequences") == 4)
    loaded.open()

    first, second, bad, third = await asyncio.gather(*sending)
    for outcome, expected in ((first, 1), (second, 2), (third, 3)):
        assert succeeded(outcome).outputs[Output.POOLED][0][0] == expected
    rejection = rejected(bad)
    assert_reported(rejection, side, "engine_failure", loaded)
    assert SECRET.encode() not in rejection.raw


@pytest.mark.parametrize("name", SIDES)
async def test_an_internal_fault_shows_the_request_id_and_no_more(name: str) -> None:
    broken = Stack.build(make_settings(), EmptyEngine)
    await broken.manager.load_all()
    async with connect(broken, name) as side:
        rejection = rejected(await side.send(side.render(GOOD)))
        assert_reported(rejection, side, "internal", broken)
    await broken.manager.close()
    assert rejection.request_id is not None
    assert rejection.request_id in rejection.message
    assert b"batch" not in rejection.raw


async def test_a_full_queue_says_when_to_come_back(side: Side, loaded: Stack) -> None:
    held = await hold(loaded, MAX_QUEUE_SEQUENCES)
    rejection = rejected(await side.send(side.render(GOOD)))
    assert_reported(rejection, side, "overloaded", loaded)
    drained_s = MAX_QUEUE_SEQUENCES * SLOT_POSITIONS * SECONDS_PER_POSITION
    assert rejection.retry_after_s is not None
    assert drained_s - 2e-3 <= rejection.retry_after_s <= drained_s * (1 + SPREAD) + 2e-3

    loaded.open()
    await asyncio.gather(*held)
    succeeded(await side.send(side.render(GOOD)))


async def test_texts_that_the_tokenizers_queue_cannot_take_say_when_to_retry(side: Side, loaded: Stack) -> None:
    queue = loaded.service._computation.texts._queue
    release = threading.Event()

    def steps() -> Steps[None]:
        yield 0
        release.wait(10)

    running = asyncio.create_task(queue.run(steps(), 1, client="first"))
    await until(lambda: queue._main.began_s is not None)
    waiting = asyncio.create_task(queue.run(steps(), queue.max_characters, client="second"))
    await until(lambda: queue.characters == queue.max_characters)
    rejection = rejected(await side.send(side.render(Query(text=["long " * 240], model=DEMO_ID))))
    assert_reported(rejection, side, "overloaded", loaded)
    drained_s = queue.work_s
    assert rejection.retry_after_s is not None
    assert drained_s - 2e-3 <= rejection.retry_after_s <= drained_s * (1 + SPREAD) + 2e-3

    release.set()
    await asyncio.gather(running, waiting)
    succeeded(await side.send(side.render(Query(text=["long " * 240], model=DEMO_ID))))


async def test_a_request_is_admitted_whole_or_rejected_whole(side: Side, loaded: Stack) -> None:
    held = await hold(loaded, MAX_QUEUE_SEQUENCES - 1)
    assert rejected(await side.send(side.render(Query(token_ids=[[1], [2]])))).code == "overloaded"
    assert loaded.gauge("electra_queued_sequences") == MAX_QUEUE_SEQUENCES - 1

    last = asyncio.create_task(side.send(side.render(Query(token_ids=[[1]]))))
    await until(lambda: loaded.gauge("electra_queued_sequences") == MAX_QUEUE_SEQUENCES)
    loaded.open()
    succeeded(await last)
    await asyncio.gather(*held)


@pytest.mark.parametrize("waiting", [0, 1], ids=["in the engine", "in the queue"])
@pytest.mark.parametrize("name", SIDES)
async def test_no_request_outlives_the_servers_own_limit(name: str, waiting: int) -> None:
    stack = Stack.build(make_settings(max_timeout_s=0.5))
    await stack.manager.load_all()
    held = await hold(stack, 0) if waiting else []
    stack.engine.gate.clear()
    async with connect(stack, name) as side:
        assert_reported(rejected(await side.send(side.render(GOOD))), side, "deadline_exceeded", stack)
    assert stack.gauge("electra_queued_sequences") == 0
    stack.open()
    await asyncio.gather(*held, return_exceptions=True)
    await stack.manager.close()


async def test_a_deadline_of_the_callers_takes_the_request_out_of_the_queue(side: Side, loaded: Stack) -> None:
    held = await hold(loaded, 0)
    rejection = rejected(await side.send(side.render(GOOD), timeout_s=0.05))
    # gRPC's client and server race to notice. If the client is first, there is only a status, and no code.
    assert rejection.code == "deadline_exceeded" or rejection.status == "DEADLINE_EXCEEDED"
    await until(lambda: loaded.gauge("electra_queued_sequences") == 0)
    codes = ("deadline_exceeded", "cancelled")
    await until(lambda: sum(loaded.counted(side.transport, code) for code in codes) == 1)
    loaded.open()
    await asyncio.gather(*held)
    assert loaded.batches() == len(held)


@pytest.mark.parametrize("side", SOCKET_SIDES, indirect=True)
async def test_a_caller_that_hangs_up_takes_its_request_out_of_the_queue(side: Side, loaded: Stack) -> None:
    held = await hold(loaded, 0)
    sending = asyncio.create_task(side.send(side.render(GOOD)))
    await until(lambda: loaded.gauge("electra_queued_sequences") == 1)

    sending.cancel()
    await until(lambda: loaded.gauge("electra_queued_sequences") == 0)
    await until(lambda: loaded.counted(side.transport, "cancelled") == 1)
    loaded.open()
    await asyncio.gather(*held)
    assert loaded.batches() == len(held)


async def test_a_model_that_loads_says_when_to_come_back(side: Side, stack: Stack) -> None:
    rejection = rejected(await side.send(side.render(GOOD)))
    assert_reported(rejection, side, "model_not_ready", stack)
    assert rejection.retry_after_s == 1.0
    assert rejection.field == "model"


async def test_a_model_that_loads_takes_no_bad_name_for_its_own(side: Side, stack: Stack) -> None:
    assert rejected(await side.send(side.render(GOOD.of("other")))).code == "model_not_found"


async def test_draining_finishes_admitted_requests_and_admits_no_more(side: Side, loaded: Stack) -> None:
    loaded.engine.gate.clear()
    admitted = asyncio.create_task(side.send(side.render(GOOD)))
    await until(lambda: loaded.gauge("electra_running_sequences") == 1)

    loaded.manager.stop()
    rejection = rejected(await side.send(side.render(GOOD)))
    assert_reported(rejection, side, "shutting_down", loaded)
    assert rejection.retry_after_s == 1.0

    loaded.open()
    assert succeeded(await admitted).tokens == 2
