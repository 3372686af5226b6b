"""Limits on open streams."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from electra_serve.api.grpc.stream_slots import (
    MAX_PER_ADDRESS,
    MAX_PER_CONNECTION,
    MAX_STREAMS,
    StreamSlots,
    TooManyStreams,
)


def hold_all(stack: ExitStack, slots: StreamSlots, peers: Iterable[str], each: int) -> None:
    """Holds `each` slots for every peer."""
    for peer in peers:
        for _ in range(each):
            stack.enter_context(slots.hold(peer))


@pytest.mark.parametrize(
    ("peers", "limit", "name"),
    [
        (["ipv4:10.0.0.1:1"], MAX_PER_CONNECTION, "a connection"),
        ([f"ipv6:%5B::1%5D:{port}" for port in range(64)], MAX_PER_ADDRESS, "an address"),
        ([f"ipv4:10.0.{n // 64}.1:{n % 64}" for n in range(256)], MAX_STREAMS, "the server"),
    ],
)
def test_streams_are_limited_by_connection_by_address_and_in_total(peers: list[str], limit: int, name: str) -> None:
    slots = StreamSlots("watches")
    with ExitStack() as stack:
        hold_all(stack, slots, peers, each=limit // len(peers))
        assert slots.held == limit
        more = {"a connection": peers[0], "an address": "ipv6:%5B::1%5D:99", "the server": "ipv4:10.9.9.9:1"}[name]
        with pytest.raises(TooManyStreams, match=f"^{name} may have at most {limit} watches open"), slots.hold(more):
            pass
        assert slots.held == limit
    assert (slots.held, slots._held) == (0, {})
    with slots.hold(peers[0]):
        assert slots.held == 1
