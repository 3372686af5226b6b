"""TCP addresses and connections of this process."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from electra_serve.errors import StartupError

OPEN_FILES: Final = Path("/proc/self/fd")
MIN_SEND_RATE: Final = 2**20
"""Bytes per second that a client must accept of a response, after the time that it may stall."""


def send_limit_s(stall_s: float, size: int) -> float:
    """Returns the seconds that a client has to accept a response.

    Args:
        stall_s: Seconds that it may stall: `send_timeout_s` of its transport.
        size: Bytes of the response.
    """
    return stall_s + size / MIN_SEND_RATE


def listen(transport: str, host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        transport: What it is for, for the error.
        host: An address, or a name; `::` takes IPv4 too.
        port: 0 takes a free one.

    Raises:
        StartupError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is; with it on, an answer
    # written in two parts waits for the client's delayed acknowledgement, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartupError(f"{transport} cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def disconnect(host: str, port: int) -> bool:
    """Shuts down this process' TCP connections with a peer.

    gRPC can end a call, but keeps a response that the client does not read until the connection closes, and has no
    call to close one.

    Args:
        host: The peer's IP address.
        port: The peer's port.

    Returns:
        True if there was such a connection.
    """
    found = False
    for connection in _connections():
        peer_host, peer_port = connection.getpeername()[:2]
        if peer_port == port and _plain_address(peer_host) == _plain_address(host):
            connection.shutdown(socket.SHUT_RDWR)
            found = True
    return found


def disconnect_clients(local_port: int) -> None:
    """Shuts down the TCP connections that clients of `local_port` have with this process."""
    for connection in _connections():
        if connection.getsockname()[1] == local_port:
            connection.shutdown(socket.SHUT_RDWR)


def _connections() -> Iterator[socket.socket]:
    """Yields this process' TCP connections; each is valid until the next."""
    for name in os.listdir(OPEN_FILES):  # noqa: PTH208  # names are all that is needed
        with contextlib.suppress(OSError):  # it is closed, or was by its owner meanwhile
            descriptor = os.dup(int(name))
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                continue
            with socket.socket(fileno=descriptor) as connection:
                is_tcp = connection.family in {socket.AF_INET, socket.AF_INET6}
                if is_tcp and connection.type == socket.SOCK_STREAM:
                    connection.getpeername()  # raises if it listens
                    yield connection


def _plain_address(host: str) -> IPv4Address | IPv6Address:
    """Parses an address; gRPC's sockets have IPv4 peers as IPv6 addresses."""
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def reachable(host: str) -> str:
    """Where a client on this machine finds what listens on `host`, as a URL writes it.

    Example:
        >>> reachable("0.0.0.0"), reachable("::"), reachable("::1"), reachable("localhost")
        ('127.0.0.1', '[::1]', '[::1]', 'localhost')
    """
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # nothing is bound here
    return f"[{address}]" if ":" in address else address


def local_url(host: str, port: int, *, tls: bool) -> str:
    """Returns the URL at which a client on this machine reaches an HTTP server that listens on `host`.

    Example:
        >>> local_url("0.0.0.0", 8080, tls=False), local_url("::", 443, tls=True)
        ('http://127.0.0.1:8080', 'https://[::1]:443')
    """
    return f"{'https' if tls else 'http'}://{reachable(host)}:{port}"
