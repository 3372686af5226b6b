"""The lag of the event loop: every tick is observed, and a stall is logged."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from electra_serve.observability.metrics import Metrics
from electra_serve.server.event_loop import STALL_S, TICK_S, EventLoopLag
from tests.fakes import FakeClock

METRIC = "electra_event_loop_lag_seconds"


class Stage:
    """A lag that is measured by a clock of the test's."""

    def __init__(self) -> None:
        self.clock, self.metrics = FakeClock(), Metrics("test")
        self.lag = EventLoopLag(self.clock, self.metrics.event_loop_lag, structlog.get_logger())
        self.lag.start()

    def sample(self, suffix: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"{METRIC}_{suffix}")


def test_a_loop_in_time_has_no_lag() -> None:
    stage = Stage()
    with capture_logs() as logs:
        for _ in range(10):
            stage.clock.advance(TICK_S)
    assert (stage.sample("count"), round(stage.sample("sum") or 0, 6), logs) == (10, 0, [])


def test_a_lag_is_observed_and_logged_from_a_second_on() -> None:
    stage = Stage()
    with capture_logs() as logs:
        stage.clock.advance(TICK_S + STALL_S - 0.01)
        stage.clock.advance(TICK_S + STALL_S + 0.01)
    assert round(stage.sample("sum") or 0, 6) == 2 * STALL_S
    [stalled] = logs
    assert (stalled["event"], stalled["log_level"], stalled["seconds"]) == ("event loop stalled", "error", 1.01)
    assert stalled["loop_cpu_seconds"] <= stalled["process_cpu_seconds"] < STALL_S


def test_nothing_is_measured_after_the_end() -> None:
    stage = Stage()
    stage.lag.stop()
    stage.clock.advance(10.0)
    assert stage.sample("count") == 0
