"""Bad input is rejected before it costs anything, and in the same way on every transport."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from electra_serve.tensors import Output
from tests.contract import bad_input, oip_grpc
from tests.contract.bad_input import MARK, Case
from tests.contract.outcome import rejected, succeeded
from tests.contract.query import Query, Wire
from tests.contract.read import STATUS_ONLY
from tests.contract.sides import Side
from tests.contract.stack import MAX_REQUEST_BYTES, Stack
from tests.waiting import until

CASES: Final = {
    "rest": (*bad_input.ANYWHERE, *bad_input.OVER_REST),
    "grpc": (*bad_input.ANYWHERE, *bad_input.OVER_GRPC, *bad_input.OVER_UNARY),
    "stream": (*bad_input.ANYWHERE, *bad_input.OVER_GRPC, *bad_input.OVER_STREAM),
    "oip-grpc": (*oip_grpc.ANYWHERE, *oip_grpc.WIRES),
    "oip-typed": oip_grpc.ANYWHERE,
    "oip-stream": (*oip_grpc.ANYWHERE, *oip_grpc.WIRES),
    "oip": (*bad_input.OIP_ANYWHERE, *bad_input.OVER_OIP),
    "oip-binary": bad_input.OIP_ANYWHERE,
}
LARGEST_REJECTION_BYTES: Final = 1000

GOOD: Final = Query(token_ids=[[1, 2, 3], [4]])


def wire_of(case: Case, side: Side) -> Wire:
    """The case's bytes, as `side` writes them."""
    return side.render(case.request) if isinstance(case.request, Query) else case.request


@pytest.mark.parametrize(
    ("side", "case"),
    [pytest.param(name, case, id=f"{name}-{case.name}") for name in CASES for case in CASES[name]],
    indirect=["side"],
)
async def test_bad_input_is_rejected(side: Side, case: Case, loaded: Stack) -> None:
    rejection = rejected(await side.send(wire_of(case, side)))

    assert (rejection.code, rejection.field) == (case.code, case.field)
    assert rejection.status == side.statuses.get(case.code)
    assert rejection.retry_after_s is None
    assert MARK.encode() not in rejection.raw
    assert len(rejection.raw) < LARGEST_REJECTION_BYTES
    assert MARK not in str(loaded.lines.calls)
    assert loaded.batches() == 0
    assert loaded.counted(side.transport, case.code) == 1
    assert succeeded(await side.send(side.render(GOOD))).tokens == 4


@pytest.mark.parametrize("side", ["grpc", "stream", "oip-grpc", "oip-stream"], indirect=True)
async def test_a_message_too_large_is_rejected_by_grpc_itself(side: Side, loaded: Stack) -> None:
    rejection = rejected(await side.send(Wire(bytes(MAX_REQUEST_BYTES + 1))))

    assert (rejection.code, rejection.status) == (STATUS_ONLY, "RESOURCE_EXHAUSTED")
    assert loaded.batches() == 0
    assert succeeded(await side.send(side.render(GOOD))).tokens == 4


async def test_bad_requests_leave_good_ones_in_flight_alone(side: Side, loaded: Stack) -> None:
    loaded.engine.gate.clear()
    good = [asyncio.create_task(side.send(side.render(Query(token_ids=[[row + 1] * 2])))) for row in range(4)]
    await until(lambda: loaded.gauge("electra_running_sequences") + loaded.gauge("electra_queued_sequences") == 4)

    cases = oip_grpc.ANYWHERE if side.transport == oip_grpc.TRANSPORT else bad_input.anywhere(side.transport)
    bad = await asyncio.gather(*(side.send(wire_of(case, side)) for case in cases))
    assert [rejected(rejection).code for rejection in bad] == [case.code for case in cases]
    assert not any(task.done() for task in good)

    loaded.open()
    responses = [succeeded(outcome) for outcome in await asyncio.gather(*good)]
    assert [response.outputs[Output.POOLED][0][0] for response in responses] == [1, 2, 3, 4]
    assert sum(len(batch.token_ids) for batch in loaded.engine.batches) == 4
