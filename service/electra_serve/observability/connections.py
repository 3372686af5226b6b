"""Counts and logs what happens to connections at their limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Protocol

import prometheus_client
import structlog

# Seconds between two lines of one listener: a flood of connections must not become one of lines
LOG_INTERVAL_S: Final = 60.0


class LimitAction(StrEnum):
    """Reaction to a connection over the limit."""

    CLOSED_IDLE = "closed_idle"  # an idle connection closed
    CLOSED_RECEIVING = "closed_receiving"  # A connection closed whose request was still being received
    OVER_LIMIT = "over_limit"  # the new connection was accepted over the limit; REST responds with 503 except to probes
    CLOSED_NEW = "closed_new"  # the new connection closed at once


class Scheduler(Protocol):
    """Calls functions on the event loop."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> object:
        """Calls `callback` once, `delay_s` from now."""


class ConnectionObserver:
    """Counts the actions of one listener, and logs the first at once and the others once a minute."""

    def __init__(
        self,
        server: str,
        limit: int,
        actions: Mapping[LimitAction, prometheus_client.Counter],
        scheduler: Scheduler,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._server = server
        self._limit = limit
        self._actions = actions
        self._scheduler = scheduler
        self._log = log
        self._unlogged: Counter[LimitAction] = Counter()
        self._waiting = False

    def record(self, action: LimitAction) -> None:
        """Counts one action; call it on the event loop."""
        self._actions[action].inc()
        self._unlogged[action] += 1
        if not self._waiting:
            self._write()

    def _write(self) -> None:
        self._waiting = bool(self._unlogged)
        if not self._waiting:
            return
        counts = {action.value: count for action, count in self._unlogged.items()}
        self._log.warning("connections full", server=self._server, limit=self._limit, **counts)
        self._unlogged.clear()
        self._scheduler.call_later(LOG_INTERVAL_S, self._write)
