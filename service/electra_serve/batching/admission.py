"""Who is let into the queue, and who is told when to come back.

The queue is bounded, and the bound is shared by dynamic thresholds (Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998): a client that already waits may hold at most `SHARE` times what stays free. So one client that
sends without end fills 80 % of the queue, two fill 44 % each, and there is room for who comes new, always. A
client of whom nothing waits is bounded by the whole queue alone. No client needs to be known beforehand, and none
has a fixed part that lies idle while it is away.

Who is refused learns when to come back: when what waits should be done, by the cost model; of a client that has more
than its share, when its own part should be. Callers who are refused in the same instant would all come back in the
same one, so the wait is stretched by up to `SPREAD`, by the golden ratio's multiples: they fill the stretch evenly,
however many they are, and need no dice.

Nothing here waits or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from electra_serve.errors import Overloaded, PayloadTooLarge

SHARE: Final = 4
"""α of dynamic thresholds: α / (1 + α) of the queue is the most that one client fills."""
SPREAD: Final = 0.25
MIN_WAIT_S: Final = 0.02
"""Nobody is told to come back sooner: what is refused twice costs twice."""
_GOLDEN: Final = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait.

    Attributes:
        max_sequences: Most sequences.
        max_tokens: Most positions.
    """

    max_sequences: int
    max_tokens: int


@dataclass(slots=True)
class QueueUsage:
    """What waits, of all or of one client.

    Attributes:
        sequences: How many.
        tokens: Their positions.
        work_s: Seconds of engine time they are expected to take.
    """

    sequences: int = 0
    tokens: int = 0
    work_s: float = 0.0

    def add(self, length: int, work_s: float) -> None:
        """One sequence more."""
        self.sequences += 1
        self.tokens += length
        self.work_s += work_s

    def remove(self, length: int, work_s: float) -> None:
        """One sequence less."""
        self.sequences -= 1
        self.tokens -= length
        self.work_s -= work_s
        if not self.sequences:
            self.work_s = 0.0  # whatever rounding has left


class Admission:
    """Knows what waits, and whether more may.

    Args:
        limits: How much may wait.
        engines: How many engines share the work.
    """

    def __init__(self, limits: QueueLimits, *, engines: int) -> None:
        self._limits = limits
        self._engines = engines
        self._rejected = 0
        self._clients: dict[str, QueueUsage] = {}
        self._reserved: dict[str, int] = {}
        self.total = QueueUsage()

    @property
    def clients(self) -> int:
        """How many clients wait."""
        return len(self._clients)

    def add(self, client: str, length: int, work_s: float) -> None:
        """A sequence was let in."""
        self.total.add(length, work_s)
        self._clients.setdefault(client, QueueUsage()).add(length, work_s)

    def remove(self, client: str, length: int, work_s: float) -> None:
        """A sequence has left."""
        self.total.remove(length, work_s)
        held = self._clients[client]
        held.remove(length, work_s)
        if not held.sequences:
            del self._clients[client]

    def reserve(self, client: str, sequences: int) -> None:
        """Counts so many sequences of a client as waiting; a negative number takes them back."""
        reserved = self._reserved.pop(client, 0) + sequences
        if reserved:
            self._reserved[client] = reserved

    def check(self, client: str, sequences: int, tokens: int) -> None:
        """Refuses what may not be added.

        Raises:
            PayloadTooLarge: It would not fit into an empty queue.
            Overloaded: It does not fit now, or is more than its client's share.
        """
        limits, total = self._limits, self.total
        if sequences > limits.max_sequences or tokens > limits.max_tokens:
            raise PayloadTooLarge(
                f"a request takes at most {limits.max_sequences} sequences and {limits.max_tokens} "
                f"positions; received {sequences} and {tokens}"
            )
        reserved = sum(self._reserved.values())
        free_sequences = limits.max_sequences - total.sequences - reserved - sequences
        free_tokens = limits.max_tokens - total.tokens - tokens
        if free_sequences < 0 or free_tokens < 0:
            raise self.overloaded(
                f"the queue takes {limits.max_sequences} sequences and {limits.max_tokens} positions; "
                f"{total.sequences + reserved} and {total.tokens} are waiting, "
                f"the request has {sequences} and {tokens}",
                total.work_s / self._engines,
            )
        held = self._clients.get(client, QueueUsage())
        held_sequences = held.sequences + self._reserved.get(client, 0)
        if held_sequences and (
            held_sequences + sequences > SHARE * free_sequences or held.tokens + tokens > SHARE * free_tokens
        ):
            raise self.overloaded(
                f"one client's sequences may fill at most {SHARE} times what they leave free in the queue; "
                f"{held_sequences} of this one are waiting",
                min(held.work_s * len(self._clients), total.work_s) / self._engines,  # it has its turns among others
            )

    def overloaded(self, message: str, wait_s: float) -> Overloaded:
        """A refusal.

        Args:
            message: What is valid, then what came.
            wait_s: Seconds after which there should be room; at least `MIN_WAIT_S` is told.
        """
        stretch = 1.0 + SPREAD * (self._rejected * _GOLDEN % 1.0)
        self._rejected += 1
        return Overloaded(message, retry_after_s=max(wait_s, MIN_WAIT_S) * stretch)
