"""Calls whose messages the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc


async def never() -> AsyncIterator[bytes]:
    """A message that does not end."""
    await asyncio.Event().wait()
    yield b""


async def nothing() -> AsyncIterator[bytes]:
    """No message."""
    for message in list[bytes]():
        yield message


def open_call(
    channel: grpc.aio.Channel, path: str, messages: AsyncIterator[bytes]
) -> grpc.aio.StreamUnaryCall[bytes, bytes]:
    """Calls a method with one message; the wire format is that of a unary call."""
    caller: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(path)
    return caller(messages)
