"""Runs each test of a `client` with all four."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("tritonclient"):
    from tests.conformance_oip.triton.clients import CLIENTS, Client

    @pytest.fixture(params=CLIENTS, ids=lambda client: client.name)
    def client(request: pytest.FixtureRequest) -> Client:
        """One of the clients."""
        found: Client = request.param
        return found
