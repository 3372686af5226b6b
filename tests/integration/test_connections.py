"""What a connection may do to the process: over real sockets, with the real server."""

from __future__ import annotations

import socket

import httpx

from tests.integration.process import ServiceProcess


def test_a_head_without_end_is_refused(service: ServiceProcess) -> None:
    with socket.create_connection(("127.0.0.1", service.rest_port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n")
        answer = _send_until_answered(connection, b"x-filler: " + b"a" * 1000 + b"\r\n", most=200)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in answer
    assert service.status("/livez") == 200


def test_a_head_just_below_the_limit_is_answered(service: ServiceProcess) -> None:
    assert httpx.get(f"{service.url}/livez", headers={"x-filler": "a" * 30_000}).status_code == 200


def _send_until_answered(connection: socket.socket, piece: bytes, most: int) -> bytes:
    for _ in range(most):
        try:
            connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            break
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b""
