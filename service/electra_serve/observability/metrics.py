"""Every Prometheus instrument, in one injected object.

All series exist before the first request: a counter that appears only with its first error cannot be
alerted on. That bounds the labels too: `model` is one of the models there are, or "" where a request named
none of them; `code` is `ok` or an error's slug. The series of a model come with it and go with it.
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

TRANSPORTS: Final = ("rest", "grpc")
CODES: Final = ("ok", *(cls.code for cls in errors.ServiceError.__subclasses__()))
LOAD_OUTCOMES: Final = ("ok", "failed")
LATENCY_BUCKETS_S: Final = (
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
)  # fmt: skip
SEQUENCE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKEN_BUCKETS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class BatchMetrics:
    """What one model's batcher reports. Each argument is already bound to its model."""

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
    """Counter that lives elsewhere: lines are dropped on any thread, before there is a registry too."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "electra_log_lines_dropped", "Log lines that were not written: their reader stalls.", self._dropped()
        )


class Metrics:
    """The instruments, on a registry of their own.

    Args:
        version: The service's version, shown by `electra_build_info`.
        dropped_log_lines: Reads how many lines of the log were dropped so far; called at each scrape.
    """

    def __init__(self, version: str, dropped_log_lines: Callable[[], int] = lambda: 0) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_LogLinesDropped(dropped_log_lines))
        self._gone: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._define_requests()
        self._define_batches()
        self._define_gauges()
        self._define_connections()
        self._define_tokenization()
        build = Gauge(
            "electra_build_info", "Always 1; the label tells the version.", ["version"], registry=self.registry
        )
        build.labels(version).set(1)
        self.event_loop_lag = Histogram(
            "electra_event_loop_lag_seconds",
            "By how much a timer of the event loop ran late, ten times a second.",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._create_request_series("")

    def _define_requests(self) -> None:
        labels = ["model", "transport", "code"]
        self.requests = Counter(
            "electra_requests_total", "Requests answered, by transport and outcome.", labels, registry=self.registry
        )
        self.request_seconds = Histogram(
            "electra_request_seconds",
            "From a request's arrival to its answer.",
            ["model", "transport"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "electra_requests_in_flight", "Requests being worked on.", ["transport"], registry=self.registry
        )
        for transport in TRANSPORTS:
            self.in_flight.labels(transport)
        self.transit_bytes = Gauge(
            "electra_transit_bytes",
            "Bytes of requests being received, decoded requests, and responses not yet sent.",
            registry=self.registry,
        )
        self.transit_max_bytes = Gauge(
            "electra_transit_max_bytes", "The budget of bytes in transit.", registry=self.registry
        )
        # Each request writes to two series, and finding one by its labels is dearer than writing to it.
        self._answered = cache(self.requests.labels)
        self._answered_seconds = cache(self.request_seconds.labels)

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
        for server in TRANSPORTS:
            self.watch_connections(server, limit=0, count=lambda: 0)

    def _define_tokenization(self) -> None:
        self.queued_characters = Gauge(
            "electra_queued_characters", "Characters of text waiting to be tokenized.", registry=self.registry
        )
        self.max_queued_characters = Gauge(
            "electra_max_queued_characters", "Most characters of text that may wait.", registry=self.registry
        )
        self.tokenization_work = Gauge(
            "electra_tokenization_work_seconds",
            "Estimated time to tokenize the text that waits.",
            registry=self.registry,
        )
        self.tokenization_wait = Histogram(
            "electra_tokenization_wait_seconds",
            "From the admission of a request's texts to their first turn at the tokenizer.",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def _define_batches(self) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ["model"], buckets=buckets, registry=self.registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, ["model"], registry=self.registry)

        self.queue_wait = histogram(
            "electra_queue_wait_seconds", "From a sequence's admission to its batch's start.", LATENCY_BUCKETS_S
        )
        self.compute = histogram("electra_compute_seconds", "One batch in the engine.", LATENCY_BUCKETS_S)
        self.batch_sequences = histogram("electra_batch_sequences", "Sequences in a batch.", SEQUENCE_BUCKETS)
        self.batch_tokens = histogram("electra_batch_tokens", "Positions in a batch, padding included.", TOKEN_BUCKETS)
        self.real_tokens = counter("electra_real_tokens_total", "Unmasked positions computed.")
        self.padded_tokens = counter("electra_padded_tokens_total", "Positions computed, padding included.")
        self.engine_failures = counter("electra_engine_failures_total", "Batches in which the engine raised.")
        self.non_finite_rows = counter("electra_non_finite_rows_total", "Sequences whose outputs were not finite.")
        self.out_of_memory = counter("electra_out_of_memory_total", "Batches for which memory was short.")

    def _define_gauges(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["model"], registry=self.registry)

        self.queued_sequences = gauge("electra_queued_sequences", "Sequences waiting for a batch.")
        self.queued_tokens = gauge("electra_queued_tokens", "Positions waiting for a batch.")
        self.queued_work = gauge(
            "electra_queued_work_seconds", "How long the engines should take for what waits, by the cost model."
        )
        self.oldest_wait = gauge(
            "electra_queue_oldest_wait_seconds", "How long the oldest waiting sequence has waited."
        )
        self.running_sequences = gauge("electra_running_sequences", "Sequences in the engine.")
        self.engines = gauge("electra_engines", "Engines that share the model's queue.")
        self.compilations = gauge("electra_compilations_after_warm_up", "Graphs compiled after warm-up; should be 0.")
        self.engine_alive = gauge("electra_engine_alive", "1 while every engine is fed and none is late, else 0.")
        self.model_ready = gauge("electra_model_ready", "1 when the model is ready, else 0.")
        self.model_load_seconds = gauge("electra_model_load_seconds", "From the start of loading to ready.")
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
        """Makes every series of `model` exist, at zero; those that do stay as they are."""
        self._gone.discard(model)
        self._create_request_series(model)
        BatchMetrics(self, model)
        for gauge in self._model_gauges:
            gauge.labels(model)
        for outcome in LOAD_OUTCOMES:
            self.model_loads.labels(model, outcome)

    def remove_model_series(self, model: str) -> None:
        """Makes no series of `model` exist any more. What is still written to them is lost."""
        self._gone.add(model)
        for instrument in self._instruments_of_models():
            instrument.remove_by_labels({"model": model})
        self._answered.cache_clear()
        self._answered_seconds.cache_clear()

    def _instruments_of_models(self) -> Iterator[Counter | Gauge | Histogram]:
        """Every instrument that has a series for each model."""
        yield from (self.requests, self.request_seconds, self.model_loads, *self._model_gauges)
        yield from (self.queue_wait, self.compute, self.batch_sequences, self.batch_tokens)
        yield from (self.real_tokens, self.padded_tokens, self.engine_failures, self.non_finite_rows)
        yield self.out_of_memory

    def batches(self, model: str) -> BatchMetrics:
        """What the batcher of `model` writes."""
        return BatchMetrics(self, model)

    def watch_transit(self, *, max_bytes: int, used_bytes: Callable[[], float]) -> None:
        """Makes the gauge of bytes in transit call `used_bytes` at each scrape."""
        self.transit_max_bytes.set(max_bytes)
        self.transit_bytes.set_function(used_bytes)

    def watch_connections(
        self, server: str, *, limit: int, count: Callable[[], float]
    ) -> Mapping[LimitAction, Counter]:
        """Makes the gauge of a listener's connections call `count` at each scrape.

        Returns:
            The listener's counter of each action.
        """
        self.max_connections.labels(server).set(limit)
        self.connections.labels(server).set_function(count)
        return {action: self.connection_limit_actions.labels(server, action) for action in LimitAction}

    def watch_tokenization(
        self, *, max_characters: int, characters: Callable[[], float], work_s: Callable[[], float]
    ) -> None:
        """Makes the gauges of the tokenizer's queue call these functions at each scrape."""
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
        """Has the gauges of `model` read these functions at each scrape, so they are never stale."""
        self.queued_sequences.labels(model).set_function(sequences)
        self.queued_tokens.labels(model).set_function(tokens)
        self.queued_work.labels(model).set_function(work_s)
        self.oldest_wait.labels(model).set_function(oldest_wait_s)
        self.running_sequences.labels(model).set_function(running)
        self.engines.labels(model).set_function(engines)
        self.compilations.labels(model).set_function(compilations)
        self.engine_alive.labels(model).set_function(alive)

    def observe_request(self, *, transport: str, model: str, code: str, seconds: float) -> None:
        """Counts one answered request.

        Args:
            transport: One of `TRANSPORTS`.
            model: A configured model's name, or "" where the request named none.
            code: `ok`, or the error's slug.
            seconds: From arrival to answer.
        """
        if model in self._gone:  # while the request was on its way
            model = ""
        self._answered(model, transport, code).inc()
        self._answered_seconds(model, transport).observe(seconds)

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
