"""All Prometheus instruments, in one injected object.

All series exist before the first request, since no alert can use a counter that appears only with its first error.
So labels have few values: `model` is a known model, or "" if the request names none; `code` is `ok` or an error's
code. The series of a model are created and removed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from electra_serve import errors
from electra_serve.observability.connections import LimitAction

SERVERS: Final = ("rest", "grpc")  # listeners of requests
TRANSPORTS: Final = ("rest", "grpc", "oip_rest", "oip_grpc")
CODES: Final = ("ok", *(cls.code for cls in errors.ServiceError.__subclasses__()))
LOAD_OUTCOMES: Final = ("ok", "failed")
LATENCY_BUCKETS_S: Final = (
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
)  # fmt: skip
SEQUENCE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKEN_BUCKETS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class BatchMetrics:
    """Instruments of one model's batcher."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.queue_wait_s = metrics.queue_wait.labels(model)
        self.compute_s = metrics.compute.labels(model)
        self.sequences = metrics.batch_sequences.labels(model)
        self.tokens = metrics.batch_tokens.labels(model)
        self.real_tokens = metrics.real_tokens.labels(model)
        self.padded_tokens = metrics.padded_tokens.labels(model)
        self.engine_failures = metrics.engine_failures.labels(model)
        self.non_finite_rows = metrics.non_finite_rows.labels(model)
        self.out_of_memory = metrics.out_of_memory.labels(model)


class _LogLinesDropped(Collector):
    """Reads a counter of the log writer, which drops lines on any thread, and before there is a registry."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "electra_log_lines_dropped", "Log lines dropped because their reader stalled.", self._dropped()
        )


class Metrics:
    """Instruments, on a separate registry; `dropped_log_lines` is called at each scrape."""

    def __init__(self, version: str, dropped_log_lines: Callable[[], int] = lambda: 0) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_LogLinesDropped(dropped_log_lines))
        self._removed: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._define_requests()
        self._define_batches()
        self._define_gauges()
        self._define_connections()
        self._define_tokenization()
        build = Gauge("electra_build_info", "Always 1; the label is the version.", ["version"], registry=self.registry)
        build.labels(version).set(1)
        self.event_loop_lag = Histogram(
            "electra_event_loop_lag_seconds",
            "Lag of a timer of the event loop, measured ten times a second.",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._create_request_series("")

    def _define_requests(self) -> None:
        labels = ["model", "transport", "code"]
        self.requests = Counter(
            "electra_requests_total", "Completed requests, by transport and outcome.", labels, registry=self.registry
        )
        self.request_seconds = Histogram(
            "electra_request_seconds",
            "Time from a request's arrival to its response.",
            ["model", "transport"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "electra_requests_in_flight", "Requests in flight.", ["transport"], registry=self.registry
        )
        for transport in TRANSPORTS:
            self.in_flight.labels(transport)
        self.transit_bytes = Gauge(
            "electra_transit_bytes",
            "Bytes of requests being received, decoded requests, and responses not yet sent.",
            registry=self.registry,
        )
        self.transit_max_bytes = Gauge(
            "electra_transit_max_bytes", "Limit of bytes in transit.", registry=self.registry
        )
        # Finding a series by its labels is more expensive than writing to it.
        self._requests_series = cache(self.requests.labels)
        self._seconds_series = cache(self.request_seconds.labels)

    def _define_connections(self) -> None:
        self.connections = Gauge("electra_connections", "Open connections.", ["server"], registry=self.registry)
        self.max_connections = Gauge(
            "electra_max_connections", "Limit of open connections.", ["server"], registry=self.registry
        )
        self.connection_limit_actions = Counter(
            "electra_connection_limit_total",
            "Connections at the limit: closed to make room, accepted over it, or closed at once.",
            ["server", "action"],
            registry=self.registry,
        )
        for server in SERVERS:
            self.watch_connections(server, limit=0, count=lambda: 0)

    def _define_tokenization(self) -> None:
        self.queued_characters = Gauge(
            "electra_queued_characters", "Characters of queued texts.", registry=self.registry
        )
        self.max_queued_characters = Gauge(
            "electra_max_queued_characters", "Limit of characters of queued texts.", registry=self.registry
        )
        self.tokenization_work = Gauge(
            "electra_tokenization_work_seconds",
            "Estimated time to tokenize the queued texts.",
            registry=self.registry,
        )
        self.tokenization_wait = Histogram(
            "electra_tokenization_wait_seconds",
            "Time from the admission of a request's texts to the start of their tokenization.",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def _define_batches(self) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ["model"], buckets=buckets, registry=self.registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, ["model"], registry=self.registry)

        self.queue_wait = histogram(
            "electra_queue_wait_seconds",
            "Time from a sequence's admission to the start of its batch.",
            LATENCY_BUCKETS_S,
        )
        self.compute = histogram("electra_compute_seconds", "Time of a batch in the engine.", LATENCY_BUCKETS_S)
        self.batch_sequences = histogram("electra_batch_sequences", "Sequences in a batch.", SEQUENCE_BUCKETS)
        self.batch_tokens = histogram("electra_batch_tokens", "Positions in a batch, padding included.", TOKEN_BUCKETS)
        self.real_tokens = counter("electra_real_tokens_total", "Unmasked positions computed.")
        self.padded_tokens = counter("electra_padded_tokens_total", "Positions computed, padding included.")
        self.engine_failures = counter("electra_engine_failures_total", "Batches in which the engine raised.")
        self.non_finite_rows = counter("electra_non_finite_rows_total", "Sequences whose outputs were not finite.")
        self.out_of_memory = counter("electra_out_of_memory_total", "Batches that ran out of memory.")

    def _define_gauges(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["model"], registry=self.registry)

        self.queued_sequences = gauge("electra_queued_sequences", "Sequences in the queue.")
        self.queued_tokens = gauge("electra_queued_tokens", "Positions in the queue.")
        self.queued_work = gauge(
            "electra_queued_work_seconds", "Estimated time of the engines for the queue, by the cost model."
        )
        self.oldest_wait = gauge(
            "electra_queue_oldest_wait_seconds", "Wait so far of the oldest sequence in the queue."
        )
        self.running_sequences = gauge("electra_running_sequences", "Sequences in the engines.")
        self.engines = gauge("electra_engines", "Engines that share the model's queue.")
        self.compilations = gauge("electra_compilations_after_warm_up", "Graphs compiled after warm-up; should be 0.")
        self.engine_alive = gauge(
            "electra_engine_alive", "1 while the batcher runs and no engine is stalled or failed, else 0."
        )
        self.model_ready = gauge("electra_model_ready", "1 when the model is ready, else 0.")
        self.model_load_seconds = gauge("electra_model_load_seconds", "Time from the start of loading to ready.")
        self._model_gauges = (
            self.queued_sequences, self.queued_tokens, self.queued_work, self.oldest_wait, self.running_sequences,
            self.engines, self.compilations, self.engine_alive, self.model_ready, self.model_load_seconds,
        )  # fmt: skip
        self.model_loads = Counter(
            "electra_model_loads_total",
            "Loads of a model, at start and at run time, by outcome.",
            ["model", "outcome"],
            registry=self.registry,
        )

    def _create_request_series(self, model: str) -> None:
        for transport in TRANSPORTS:
            self.request_seconds.labels(model, transport)
            for code in CODES:
                self.requests.labels(model, transport, code)

    def create_model_series(self, model: str) -> None:
        """Creates the missing series of `model`, at zero."""
        self._removed.discard(model)
        self._create_request_series(model)
        BatchMetrics(self, model)
        for gauge in self._model_gauges:
            gauge.labels(model)
        for outcome in LOAD_OUTCOMES:
            self.model_loads.labels(model, outcome)

    def remove_model_series(self, model: str) -> None:
        """Removes the series of `model`; later writes to them are lost."""
        self._removed.add(model)
        for instrument in self._instruments_of_models():
            instrument.remove_by_labels({"model": model})
        self._requests_series.cache_clear()
        self._seconds_series.cache_clear()

    def _instruments_of_models(self) -> Iterator[Counter | Gauge | Histogram]:
        yield from (self.requests, self.request_seconds, self.model_loads, *self._model_gauges)
        yield from (self.queue_wait, self.compute, self.batch_sequences, self.batch_tokens)
        yield from (self.real_tokens, self.padded_tokens, self.engine_failures, self.non_finite_rows)
        yield self.out_of_memory

    def batches(self, model: str) -> BatchMetrics:
        """Returns the instruments of the batcher of `model`."""
        return BatchMetrics(self, model)

    def watch_transit(self, *, max_bytes: int, used_bytes: Callable[[], float]) -> None:
        """Connects the gauge of bytes in transit, which calls `used_bytes` at each scrape."""
        self.transit_max_bytes.set(max_bytes)
        self.transit_bytes.set_function(used_bytes)

    def watch_connections(
        self, server: str, *, limit: int, count: Callable[[], float]
    ) -> Mapping[LimitAction, Counter]:
        """Connects the gauge of a listener's connections, which calls `count` at each scrape; returns its counters."""
        self.max_connections.labels(server).set(limit)
        self.connections.labels(server).set_function(count)
        return {action: self.connection_limit_actions.labels(server, action) for action in LimitAction}

    def watch_tokenization(
        self, *, max_characters: int, characters: Callable[[], float], work_s: Callable[[], float]
    ) -> None:
        """Connects the gauges of the tokenizer's queue, which call these functions at each scrape."""
        self.max_queued_characters.set(max_characters)
        self.queued_characters.set_function(characters)
        self.tokenization_work.set_function(work_s)

    def watch_queue(
        self,
        model: str,
        *,
        sequences: Callable[[], float],
        tokens: Callable[[], float],
        work_s: Callable[[], float],
        oldest_wait_s: Callable[[], float],
        running: Callable[[], float],
        engines: Callable[[], float],
        compilations: Callable[[], float],
        alive: Callable[[], float],
    ) -> None:
        """Connects the gauges of `model`, which call these functions at each scrape."""
        self.queued_sequences.labels(model).set_function(sequences)
        self.queued_tokens.labels(model).set_function(tokens)
        self.queued_work.labels(model).set_function(work_s)
        self.oldest_wait.labels(model).set_function(oldest_wait_s)
        self.running_sequences.labels(model).set_function(running)
        self.engines.labels(model).set_function(engines)
        self.compilations.labels(model).set_function(compilations)
        self.engine_alive.labels(model).set_function(alive)

    def observe_request(self, *, transport: str, model: str, code: str, seconds: float) -> None:
        """Counts a completed request; `model` is a configured name or "", and `code` is `ok` or the error's code."""
        if model in self._removed:  # while the request was in flight
            model = ""
        self._requests_series(model, transport, code).inc()
        self._seconds_series(model, transport).observe(seconds)

    def exposition(self) -> tuple[bytes, str]:
        """Returns the text for Prometheus, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
