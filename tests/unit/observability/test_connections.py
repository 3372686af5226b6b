"""Actions at the limit of connections: all are counted, and few are lines."""

from __future__ import annotations

import structlog
from structlog.testing import LogCapture

from electra_serve.observability.connections import LOG_INTERVAL_S, ConnectionObserver, LimitAction
from electra_serve.observability.metrics import Metrics
from tests.fakes import FakeClock


def test_the_first_is_logged_at_once_and_the_others_once_a_minute() -> None:
    metrics, clock, lines = Metrics("0"), FakeClock(), LogCapture()
    actions = metrics.watch_connections("rest", limit=7, count=lambda: 3)
    log = structlog.wrap_logger(None, [lines], structlog.make_filtering_bound_logger(0))
    observer = ConnectionObserver("rest", 7, actions, clock, log)
    for _ in range(3):
        observer.record(LimitAction.CLOSED_IDLE)
    observer.record(LimitAction.CLOSED_NEW)
    common = {"event": "connections full", "server": "rest", "limit": 7, "log_level": "warning"}
    assert lines.entries == [{**common, "closed_idle": 1}]
    clock.advance(LOG_INTERVAL_S)
    assert lines.entries[1:] == [{**common, "closed_idle": 2, "closed_new": 1}]
    clock.advance(10 * LOG_INTERVAL_S)
    observer.record(LimitAction.OVER_LIMIT)
    assert lines.entries[2:] == [{**common, "over_limit": 1}]
    text = metrics.exposition()[0].decode()
    assert 'electra_connection_limit_total{action="closed_idle",server="rest"} 3.0' in text
    assert 'electra_connection_limit_total{action="closed_receiving",server="rest"} 0.0' in text
    assert 'electra_connections{server="rest"} 3.0' in text
    assert 'electra_max_connections{server="rest"} 7.0' in text
