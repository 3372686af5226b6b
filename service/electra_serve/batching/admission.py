"""Admission control: bounds the queue, and each client's share of it.

A client with queued sequences may hold at most `SHARE` times the free capacity (dynamic thresholds: Choudhury and
Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). One client fills at most 80 % of the queue, two 44 % each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from electra_serve.errors import Overloaded, PayloadTooLarge

SHARE: Final = 4  # α: one client fills at most α / (1 + α) of the queue
SPREAD: Final = 0.25  # stretches `retry_after_s`: clients rejected together do not retry together
MIN_WAIT_S: Final = 0.02  # a retry that is rejected again costs twice
_GOLDEN: Final = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Capacity of the queue."""

    max_sequences: int
    max_tokens: int


@dataclass(slots=True)
class QueueUsage:
    """Queued work, of all clients or of one. `work_s` is estimated engine time."""

    sequences: int = 0
    tokens: int = 0
    work_s: float = 0.0

    def add(self, length: int, work_s: float) -> None:
        """Adds one sequence."""
        self.sequences += 1
        self.tokens += length
        self.work_s += work_s

    def remove(self, length: int, work_s: float) -> None:
        """Removes one sequence."""
        self.sequences -= 1
        self.tokens -= length
        self.work_s -= work_s
        if not self.sequences:
            self.work_s = 0.0  # drops accumulated rounding errors


class Admission:
    """Tracks queued work per client and rejects requests over the limits."""

    def __init__(self, limits: QueueLimits, *, engines: int) -> None:
        self._limits = limits
        self._engines = engines
        self._rejected = 0
        self._clients: dict[str, QueueUsage] = {}
        self._reserved: dict[str, int] = {}
        self.total = QueueUsage()

    @property
    def clients(self) -> int:
        """Number of clients with queued sequences."""
        return len(self._clients)

    def add(self, client: str, length: int, work_s: float) -> None:
        """Counts one queued sequence."""
        self.total.add(length, work_s)
        self._clients.setdefault(client, QueueUsage()).add(length, work_s)

    def remove(self, client: str, length: int, work_s: float) -> None:
        """Discounts one sequence that left the queue."""
        self.total.remove(length, work_s)
        held = self._clients[client]
        held.remove(length, work_s)
        if not held.sequences:
            del self._clients[client]

    def reserve(self, client: str, sequences: int) -> None:
        """Counts `sequences` that are not queued yet; a negative number releases them."""
        reserved = self._reserved.pop(client, 0) + sequences
        if reserved:
            self._reserved[client] = reserved

    def ensure_capacity(self, client: str, sequences: int, tokens: int) -> None:
        """Raises PayloadTooLarge for a request over the queue's limits, or Overloaded for one that does not fit now."""
        limits, total = self._limits, self.total
        if sequences > limits.max_sequences or tokens > limits.max_tokens:
            raise PayloadTooLarge(
                f"a request must have at most {limits.max_sequences} sequences and {limits.max_tokens} "
                f"tokens; got {sequences} and {tokens}"
            )
        reserved = sum(self._reserved.values())
        free_sequences = limits.max_sequences - total.sequences - reserved - sequences
        free_tokens = limits.max_tokens - total.tokens - tokens
        if free_sequences < 0 or free_tokens < 0:
            raise self.overloaded(
                f"cannot queue {sequences} sequences with {tokens} tokens: "
                f"{total.sequences + reserved} of {limits.max_sequences} sequences and "
                f"{total.tokens} of {limits.max_tokens} tokens are queued",
                total.work_s / self._engines,
            )
        held = self._clients.get(client, QueueUsage())
        held_sequences = held.sequences + self._reserved.get(client, 0)
        if held_sequences and (
            held_sequences + sequences > SHARE * free_sequences or held.tokens + tokens > SHARE * free_tokens
        ):
            raise self.overloaded(
                f"cannot queue {sequences} sequences: this client has {held_sequences} queued, "
                f"and one client may hold at most {SHARE} times the free capacity",
                min(held.work_s * len(self._clients), total.work_s) / self._engines,  # clients take turns
            )

    def overloaded(self, message: str, wait_s: float) -> Overloaded:
        """Returns the error of a rejected request; `retry_after_s` is `wait_s`, at least `MIN_WAIT_S`, stretched."""
        stretch = 1.0 + SPREAD * (self._rejected * _GOLDEN % 1.0)  # multiples of the golden ratio spread evenly
        self._rejected += 1
        return Overloaded(message, retry_after_s=max(wait_s, MIN_WAIT_S) * stretch)
