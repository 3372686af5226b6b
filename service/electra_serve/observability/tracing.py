"""What the transports and the batcher tell a tracer, and nothing of how it is sent.

    request       from arrival to answer, child of the caller's span
    ├ queue       from admission to the choice of the batch, linked to it
    └ batch       from its choice to its end, linked to every request in it
      └ compute   the engine

A batch has many requests and a request may have many batches. Links join them all; as a child, a batch is shown in the
trace of its most urgent request. Without tracing there is no tracer, and nothing here runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

TRACE_RESPONSE_KEY: Final = "traceresponse"
"""Under which the answer names its span, in the form of `traceparent`: W3C Trace Context, level 2."""

Carrier: TypeAlias = Mapping[str, str | bytes]
"""A caller's headers or metadata, of which `traceparent` and `tracestate` matter; names in lower case."""
NO_CARRIER: Final[Carrier] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended.

    Attributes:
        model: The served model's name; "" where it named none.
        code: `ok`, or the error's slug.
        fault: Whether the fault is ours.
        sequences: Rows asked for.
        tokens: Unmasked positions computed.
    """

    model: str
    code: str
    fault: bool
    sequences: int
    tokens: int


class RequestSpan(Protocol):
    """One request, from its arrival to its answer."""

    @property
    def traceresponse(self) -> str:
        """Trace and span, in the form of `traceparent`."""
        ...

    def end(self, outcome: Outcome) -> None:
        """The answer is there."""
        ...


@dataclass(frozen=True, slots=True)
class Waited:
    """One row's wait for its batch.

    Attributes:
        span: Its request.
        admitted_at: When it was admitted, in seconds of the event loop's clock.
    """

    span: RequestSpan
    admitted_at: float


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """One batch's way, in seconds of the event loop's clock.

    Attributes:
        chosen: When it was cut from what waited.
        started: When the engine began.
        ended: When the engine ended.
    """

    chosen: float
    started: float
    ended: float


class Tracer(Protocol):
    """Makes spans."""

    def request(self, transport: str, method: str, carrier: Carrier) -> RequestSpan:
        """A request has arrived.

        Args:
            transport: `rest` or `grpc`.
            method: What was called.
            carrier: Where the caller's own span may be named.
        """
        ...

    def batch(self, times: BatchTimes, attributes: Mapping[str, str | int], waited: Sequence[Waited]) -> None:
        """A batch has ended.

        Args:
            times: Of the batch.
            attributes: What is known of it: model, shape, outcome.
            waited: Its rows whose requests are traced.
        """
        ...

    def close(self) -> None:
        """Sends what is left; blocks for some seconds at most."""
        ...
