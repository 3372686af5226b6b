"""Client, id, priority and deadline of a gRPC call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

import grpc

from electra_serve.api.grpc.status import REQUEST_ID_KEY
from electra_serve.api.request_options import PRIORITY_KEY, joined, lesser, parse_priority, proxy_timeout_s
from electra_serve.api.security.authentication import Authenticator
from electra_serve.errors import DeadlineExceeded
from electra_serve.observability.requests import RequestRecord
from electra_serve.serving.request_context import Deadline, RequestContext

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
Metadata: TypeAlias = Mapping[str, str | bytes]  # metadata of the client; lines of one key form one value


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated call.

    `metadata` has the client's, `client` is its name for fairness, and `proxy_deadline` comes from a proxy in front.
    """

    context: Context
    metadata: Metadata
    client: str
    proxy_deadline: Deadline | None

    @classmethod
    def of(cls, context: Context, metadata: Metadata, authenticator: Authenticator) -> Call:
        """Authenticates a call; raises `Unauthenticated`."""
        client = authenticator.name_of(metadata, host_of(context.peer()))
        return cls(context, metadata, client, Deadline.after(proxy_timeout_s(metadata)))

    def request_context(self, record: RequestRecord) -> RequestContext:
        """Returns the context of one request of the call; raises `MalformedRequest` for an unknown priority."""
        proxy_s = None if self.proxy_deadline is None else self.proxy_deadline.remaining_s()
        return RequestContext(
            request_id=record.request_id,
            client=self.client,
            priority=parse_priority(self.metadata.get(PRIORITY_KEY)),
            deadline=Deadline.after(lesser(self._remaining_s, proxy_s)),
            span=record.span,
        )

    @property
    def _remaining_s(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        remaining = self.context.time_remaining()
        return None if remaining is None else max(remaining, 0.0)

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Raises `DeadlineExceeded` for a call that is cancelled at its deadline, and not by its client."""
        try:
            yield
        except asyncio.CancelledError:
            if self._remaining_s == 0.0:
                raise DeadlineExceeded("the deadline passed before the response was ready") from None
            raise


def metadata_of(context: Context) -> Metadata:
    """Returns the metadata of the call."""
    lines = context.invocation_metadata() or ()
    metadata: dict[str, str | bytes] = dict(lines)
    return metadata if len(metadata) == len(lines) else joined(lines)


def request_id_of(metadata: Metadata) -> str | None:
    """Returns the client's unchecked id of the request."""
    value = metadata.get(REQUEST_ID_KEY)
    return value if isinstance(value, str) else None


def address_of(peer: str) -> tuple[str, int] | None:
    """Returns host and port of a TCP peer; None for other peers.

    >>> address_of("ipv6:%5B2001:db8::7%5D:53122"), address_of("unix:/run/electra.sock")
    (('2001:db8::7', 53122), None)
    """
    scheme, _, address = peer.partition(":")
    if scheme not in {"ipv4", "ipv6"}:
        return None
    host, _, port = unquote(address).rpartition(":")
    return host.strip("[]"), int(port)


def host_of(peer: str) -> str:
    """Returns the address of a peer without its port, which all connections of one client share.

    >>> host_of("ipv4:10.0.0.7:53122"), host_of("ipv6:%5B2001:db8::7%5D:53122"), host_of("unix:/run/electra.sock")
    ('10.0.0.7', '2001:db8::7', 'unix:/run/electra.sock')
    """
    address = address_of(peer)
    return peer if address is None else address[0]
