"""Connections of one listener: their number is limited, and decides which of them makes room for a new one.

- A connection counts from its acceptance to its end, handshakes included.
- At the limit, the longest idle connection of the address that has most idle ones closes.
- If none is idle, the oldest that still sends its request closes, if its address has more than twice as many as the
  new one's. So one address cannot block others, and clients behind one proxy do not compete.
- Otherwise the new one is over the limit: REST responds with 503, except to probes. A second limit closes it at once.

See decision 15.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from electra_serve.observability.connections import LimitAction

OnLimit = Callable[[LimitAction], None]  # takes each action at the limit

_MIN_SURPLUS: Final = 8
_MAX_SURPLUS: Final = 64


def surplus_of(limit: int) -> int:
    """Returns the number of connections that a listener accepts over `limit`, for probes.

    Example:
        >>> surplus_of(1), surplus_of(256), surplus_of(4096)
        (8, 32, 64)
    """
    return min(max(limit // 8, _MIN_SURPLUS), _MAX_SURPLUS)


class Phase(Enum):
    """State of a connection, by what may end it."""

    IDLE = auto()  # it has no request: it handshakes, waits for a head, or is kept alive
    RECEIVING = auto()  # the client sends the body of its request
    WORKING = auto()  # its request is complete, or has a response


class Connection:
    """One open connection."""

    __slots__ = ("address", "close", "closing", "over_limit", "phase")

    def __init__(self, address: str, close: Callable[[], None]) -> None:
        self.address = address
        self.close = close
        self.closing = False
        self.over_limit = False
        self.phase = Phase.IDLE


class ConnectionTable:
    """Open connections of one listener.

    Example:
        >>> closed, actions = [], []
        >>> table = ConnectionTable(2, surplus=1, on_limit=actions.append)
        >>> for number, address in enumerate(("10.0.0.1", "10.0.0.2", "10.0.0.2")):
        ...     _ = table.admit(address, lambda number=number: closed.append(number))
        >>> closed, actions
        ([0], [<LimitAction.CLOSED_IDLE: 'closed_idle'>])
    """

    def __init__(self, limit: int, *, surplus: int, on_limit: OnLimit = lambda _: None) -> None:
        self.limit = limit
        self._surplus = surplus
        self._on_limit = on_limit
        self._open = 0
        self._closing = 0
        self._groups = {Phase.IDLE: _Groups(), Phase.RECEIVING: _Groups()}

    def __len__(self) -> int:
        """Returns the number of connections that hold a descriptor."""
        return self._open

    def admit(self, address: str, close: Callable[[], None]) -> Connection | None:
        """Adds a new connection, which is idle, and makes room for it at the limit; returns None if it has to close.

        `address` has no port. `close` closes the connection at once, and `remove` follows.
        """
        connection = Connection(address, close)
        if self._full:
            if not self._make_room(address) and self._open >= self.limit + self._surplus:
                self._on_limit(LimitAction.CLOSED_NEW)
                return None
            connection.over_limit = self._full  # what closed may have been over the limit itself
            if connection.over_limit:
                self._on_limit(LimitAction.OVER_LIMIT)
        self._open += 1
        self._groups[Phase.IDLE].add(connection)
        return connection

    def move(self, connection: Connection, phase: Phase) -> None:
        """Records that a connection is in another phase."""
        if connection.closing or phase is connection.phase:
            return
        self._leave_group(connection)
        connection.phase = phase
        if phase in self._groups:
            self._groups[phase].add(connection)

    def remove(self, connection: Connection) -> None:
        """Removes a connection that has ended; call it once."""
        self._open -= 1
        if connection.closing:
            self._closing -= 1
        else:
            self._leave_group(connection)

    @property
    def _full(self) -> bool:
        return self._open - self._closing >= self.limit

    def _leave_group(self, connection: Connection) -> None:
        if connection.phase in self._groups:
            self._groups[connection.phase].discard(connection)

    def _make_room(self, newcomer: str) -> bool:
        """Closes a connection for one from the address `newcomer`; returns False if none may close."""
        idle, receiving = self._groups[Phase.IDLE].oldest(), self._groups[Phase.RECEIVING].oldest()
        if idle is not None:
            self._close(idle, LimitAction.CLOSED_IDLE)
        elif receiving is not None and self._outnumbers(receiving.address, newcomer):
            self._close(receiving, LimitAction.CLOSED_RECEIVING)
        else:
            return False
        return True

    def _outnumbers(self, address: str, other: str) -> bool:
        receiving = self._groups[Phase.RECEIVING]
        return receiving.size(address) > 2 * (receiving.size(other) + 1)

    def _close(self, connection: Connection, action: LimitAction) -> None:
        self._leave_group(connection)
        connection.closing = True
        self._closing += 1
        self._on_limit(action)
        connection.close()


class _Groups:
    """Connections grouped by address; finds the oldest one of the largest group in constant time."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[Connection, None]] = {}
        self._addresses: dict[int, dict[str, None]] = {}  # by the size of their group
        self._largest = 0

    def add(self, connection: Connection) -> None:
        group = self._groups.setdefault(connection.address, {})
        group[connection] = None
        self._resize(connection.address, len(group) - 1, len(group))

    def discard(self, connection: Connection) -> None:
        group = self._groups[connection.address]
        del group[connection]
        self._resize(connection.address, len(group) + 1, len(group))
        if not group:
            del self._groups[connection.address]

    def size(self, address: str) -> int:
        return len(self._groups.get(address, ()))

    def oldest(self) -> Connection | None:
        if not self._largest:
            return None
        address = next(iter(self._addresses[self._largest]))
        return next(iter(self._groups[address]))

    def _resize(self, address: str, before: int, after: int) -> None:
        if before:
            del self._addresses[before][address]
            if not self._addresses[before]:
                del self._addresses[before]
        if after:
            self._addresses.setdefault(after, {})[address] = None
        if after > self._largest or self._largest not in self._addresses:
            self._largest = after  # the largest group has changed, by one connection
