"""A service with its models loaded, and a way to it over each transport."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.sides import SIDES, Side, connect
from tests.contract.stack import Stack, make_settings


@pytest.fixture
def stack() -> Stack:
    """Not loaded yet."""
    return Stack.build(make_settings())


@pytest.fixture
async def loaded(stack: Stack) -> AsyncIterator[Stack]:
    """With its models ready."""
    await stack.manager.load_all()
    yield stack
    stack.open()
    await stack.manager.close()


@pytest.fixture(params=SIDES)
async def side(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Side]:
    """A way to `stack`."""
    async with connect(stack, request.param) as connected:
        yield connected
