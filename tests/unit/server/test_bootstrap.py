"""Settings that the system has no room for."""

from __future__ import annotations

import structlog
from structlog.testing import LogCapture

from electra_serve.server.bootstrap import lower_connection_limits
from electra_serve.settings.schema import Settings


def test_limits_on_connections_follow_the_descriptors() -> None:
    lines, settings = LogCapture(), Settings()
    log = structlog.wrap_logger(None, [lines], structlog.make_filtering_bound_logger(0))
    assert lower_connection_limits(settings, 10_000, log) is settings
    assert lines.entries == []
    lowered = lower_connection_limits(settings, 1024, log)
    assert (lowered.rest.max_connections, lowered.grpc.max_connections) == (384, 384)
    assert lowered.rest.model_copy(update={"max_connections": settings.rest.max_connections}) == settings.rest
    assert lines.entries == [
        {
            "event": "connection limits lowered",
            "descriptors": 1024,
            "rest": 384,
            "grpc": 384,
            "log_level": "warning",
        }
    ]
