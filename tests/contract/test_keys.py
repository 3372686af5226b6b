"""With required keys, every transport checks them before it reads anything, and repeats none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import httpx
import pytest
import structlog
from structlog.testing import LogCapture

from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from tests.contract.outcome import Outcome, rejected, succeeded
from tests.contract.query import Query, Wire
from tests.contract.sides import ALL_SIDES, Side, application, connect
from tests.contract.stack import MAX_QUEUE_SEQUENCES, Stack, make_settings
from tests.waiting import until

KEY: Final = "shop-0123456789abcdef"
OTHER: Final = "desk-fedcba9876543210"
GOOD: Final = Query(token_ids=[[1, 2]])
BROKEN: Final = Wire(b"\xff\xff")


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    file = tmp_path / "keys"
    file.write_text(f"shop:{KEY}\ndesk:{OTHER}\n")
    stack = Stack.build(
        make_settings(), authenticator=Authenticator(KeyRing(file, structlog.wrap_logger(None, [LogCapture()])))
    )
    await stack.manager.load_all()
    yield stack
    await stack.manager.close()


@pytest.fixture(params=ALL_SIDES)
async def side(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Side]:
    async with connect(stack, request.param) as connected:
        yield connected


@pytest.mark.parametrize(
    "metadata", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"x-api-key": OTHER}]
)
async def test_a_client_with_a_key_is_served(side: Side, metadata: Mapping[str, str]) -> None:
    assert succeeded(await side.send(side.render(GOOD), metadata=metadata)).tokens == 2


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {KEY}x"},
        {"x-api-key": ""},
        {"x-api-key": "guess-0123456789abcdef", "authorization": f"Bearer {KEY}"},
    ],
)
async def test_who_has_none_is_rejected_alike(side: Side, stack: Stack, metadata: Mapping[str, str]) -> None:
    rejection = rejected(await side.send(side.render(GOOD), metadata=metadata))
    assert rejection.code == "unauthenticated"
    # A stream whose call has no key has no place for its requests' own errors.
    assert rejection.status == side.statuses.get("unauthenticated", "UNAUTHENTICATED")
    assert stack.counted(side.transport, "unauthenticated") == 1
    shown = rejection.raw + str(stack.lines.calls).encode()
    assert not any(secret in shown for secret in (KEY.encode(), OTHER.encode(), b"guess"))


@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        ((("x-api-key", KEY), ("x-api-key", KEY)), False),
        ((("x-api-key", KEY), ("x-api-key", "guess-0123456789abcdef")), False),
        ((("x-api-key", "guess-0123456789abcdef"), ("x-api-key", KEY)), False),
        ((("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {OTHER}")), False),
        ((("authorization", f"Bearer {KEY}"), ("authorization", "Basic eDp5")), False),
        ((("authorization", f"Bearer {KEY}"), ("x-api-key", OTHER)), True),
        ((("x-api-key", OTHER), ("authorization", "Bearer no"), ("authorization", "Basic eDp5")), True),
        ((("x-api-key", ""), ("authorization", f"Bearer {KEY}")), False),
    ],
)
async def test_a_repeated_key_follows_one_rule(
    side: Side, stack: Stack, lines: tuple[tuple[str, str], ...], accepted: bool
) -> None:
    outcome = await side.send(side.render(GOOD), metadata=lines)
    if accepted:
        assert succeeded(outcome).tokens == 2
    else:
        assert rejected(outcome).code == "unauthenticated"
    transport = httpx.ASGITransport(application(stack))
    async with httpx.AsyncClient(transport=transport, base_url="http://rest.test") as client:
        for path in ("/v1/models", "/v1/models/tiny"):
            assert (await client.get(path, headers=lines)).status_code == (200 if accepted else 401)


async def test_a_key_is_asked_for_before_the_request_is_read(side: Side, stack: Stack) -> None:
    assert rejected(await side.send(BROKEN)).code == "unauthenticated"
    assert rejected(await side.send(BROKEN, metadata={"x-api-key": KEY})).code == "malformed_request"


async def test_a_key_that_sends_without_end_leaves_room_for_another(side: Side, stack: Stack) -> None:
    stack.engine.gate.clear()

    def send(key: str) -> asyncio.Task[Outcome]:
        return asyncio.create_task(side.send(side.render(GOOD), metadata={"x-api-key": key}))

    heavy: list[asyncio.Task[Outcome]] = []
    for running in (1, 2):  # as many batches as are in flight at a time
        heavy.append(send(KEY))
        await until(lambda running=running: stack.gauge("electra_running_sequences") == running)  # type: ignore[misc]
    heavy += [send(KEY) for _ in range(MAX_QUEUE_SEQUENCES)]
    await until(lambda: stack.counted(side.transport, "overloaded") == 2)
    assert stack.gauge("electra_queued_sequences") == MAX_QUEUE_SEQUENCES - 2
    light = send(OTHER)
    await until(lambda: stack.gauge("electra_queued_sequences") == MAX_QUEUE_SEQUENCES - 1)
    stack.open()
    succeeded(await light)
    outcomes = await asyncio.gather(*heavy)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Rejection"] * 2 + ["Success"] * 6


async def test_rest_challenges_and_keeps_its_probes_open(stack: Stack) -> None:
    transport = httpx.ASGITransport(application(stack))
    async with httpx.AsyncClient(transport=transport, base_url="http://rest.test") as client:
        for path in ("/v1/models", "/v1/models/tiny", "/v1/models/secret"):
            rejection = await client.get(path)
            assert (rejection.status_code, rejection.headers["www-authenticate"]) == (401, "Bearer")
            assert (await client.get(path, headers={"x-api-key": KEY})).status_code != 401
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404
