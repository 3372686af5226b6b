"""The rig that most tests of the batcher use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.batching.rig import Rig, close, make_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = make_rig()
    made.batcher.start()
    yield made
    await close(made)
