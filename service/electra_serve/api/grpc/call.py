"""What a call says beside its message: who calls, what it is named, how urgent it is and until when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

import grpc

from electra_serve.api.grpc.status import REQUEST_ID_KEY
from electra_serve.api.request_options import PRIORITY_KEY, Deadline, joined, lesser, parse_priority, proxy_timeout_s
from electra_serve.api.security.authentication import Authenticator
from electra_serve.errors import DeadlineExceeded
from electra_serve.serving.service import Priority

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
Metadata: TypeAlias = Mapping[str, str | bytes]
"""The client's own; lines of one key form one value."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as its context tells it.

    Attributes:
        context: What it was read from.
        metadata: What came beside the message.
        client: Who calls, for fairness between clients.
        proxy_deadline: When a proxy in front stops waiting; None if there is none.
    """

    context: Context
    metadata: Metadata
    client: str
    proxy_deadline: Deadline | None

    @classmethod
    def of(cls, context: Context, metadata: Metadata, authenticator: Authenticator) -> Call:
        """A call whose caller is known.

        Raises:
            Unauthenticated: The caller may not ask.
        """
        client = authenticator.name_of(metadata, host_of(context.peer()))
        allowed_s = proxy_timeout_s(metadata)
        return cls(context, metadata, client, None if allowed_s is None else Deadline(time.monotonic() + allowed_s))

    @property
    def priority(self) -> Priority:
        """Which requests go first.

        Raises:
            MalformedRequest: It is none of high, normal and low.
        """
        return parse_priority(self.metadata.get(PRIORITY_KEY))

    @property
    def timeout_s(self) -> float | None:
        """Seconds that the caller and a proxy in front will still wait, the lesser of the two; None: neither says."""
        return lesser(self._remaining_s, None if self.proxy_deadline is None else self.proxy_deadline.remaining_s())

    @property
    def _remaining_s(self) -> float | None:
        """Seconds until gRPC's own deadline; None: the caller set none."""
        remaining = self.context.time_remaining()
        return None if remaining is None else max(remaining, 0.0)

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Tells a call that ended at its caller's deadline from one whose caller went away: gRPC cancels both.

        Raises:
            DeadlineExceeded: The call was cancelled, and its deadline has passed.
        """
        try:
            yield
        except asyncio.CancelledError:
            if self._remaining_s == 0.0:
                raise DeadlineExceeded("the deadline passed before the answer was there") from None
            raise


def metadata_of(context: Context) -> Metadata:
    """Returns the metadata of the call."""
    lines = context.invocation_metadata() or ()
    metadata: dict[str, str | bytes] = dict(lines)
    return metadata if len(metadata) == len(lines) else joined(lines)


def request_id_of(metadata: Metadata) -> str | None:
    """The caller's own name for the request, unchecked."""
    value = metadata.get(REQUEST_ID_KEY)
    return value if isinstance(value, str) else None


def address_of(peer: str) -> tuple[str, int] | None:
    """Returns host and port of a TCP peer; None for other peers.

    Example:
        >>> address_of("ipv6:%5B2001:db8::7%5D:53122"), address_of("unix:/run/electra.sock")
        (('2001:db8::7', 53122), None)
    """
    scheme, _, address = peer.partition(":")
    if scheme not in {"ipv4", "ipv6"}:
        return None
    host, _, port = unquote(address).rpartition(":")
    return host.strip("[]"), int(port)


def host_of(peer: str) -> str:
    """The address of a peer without its port, so that one client's connections count as one.

    Example:
        >>> host_of("ipv4:10.0.0.7:53122"), host_of("ipv6:%5B2001:db8::7%5D:53122"), host_of("unix:/run/electra.sock")
        ('10.0.0.7', '2001:db8::7', 'unix:/run/electra.sock')
    """
    address = address_of(peer)
    return peer if address is None else address[0]
