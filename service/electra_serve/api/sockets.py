"""Takes a TCP address, or says in one line why it cannot be had."""

from __future__ import annotations

import socket

from electra_serve.errors import StartupError


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
