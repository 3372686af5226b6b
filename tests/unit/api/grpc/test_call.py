"""Metadata of a call."""

from __future__ import annotations

import pytest

from electra_serve.api.grpc.call import host_of


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1"),
        ("ipv6:[::1]:4711", "::1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("unix:", "unix:"),
        ("unix:/run/electra.sock", "unix:/run/electra.sock"),
    ],
)
def test_a_peer_is_known_by_its_host(peer: str, host: str) -> None:
    assert host_of(peer) == host
