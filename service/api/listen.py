"""Takes a TCP address, or says in one line why it cannot be had."""

from __future__ import annotations

import socket

from service.errors import StartupError


def listen(transport: str, host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        transport: What it is for, for the error.
        host: An address, IPv4 or IPv6, or a name.
        port: 0 takes a free one.

    Raises:
        StartupError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StartupError(f"{transport} cannot listen on {host}:{port}: {error.strerror}") from error
