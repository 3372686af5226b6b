"""Panels of the dashboard, row by row. Bounds are those of the alerts: deploy/prometheus/rules/alerts.yml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tools.dashboard.panel import Panel, Query

JOB: Final = 'job=~"$job"'
MODEL: Final = 'job=~"$job", model=~"$model"'
WINDOW: Final = "$__rate_interval"


def _quantiles(metric: str, *percents: int) -> tuple[Query, ...]:
    buckets = f"sum by (le) (rate({metric}_bucket{{{MODEL}}}[{WINDOW}]))"
    return tuple(Query(f"histogram_quantile({percent / 100:g}, {buckets})", f"p{percent}") for percent in percents)


def _buckets(metric: str) -> tuple[Query, ...]:
    return (Query(f"sum by (le) (increase({metric}_bucket{{{MODEL}}}[{WINDOW}]))", "{{le}}", heatmap=True),)


def _gauge(metric: str) -> Query:
    return Query(f"{metric}{{{MODEL}}}", "{{instance}} {{model}}")


ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "At a glance": (
        Panel(
            "Models ready",
            "Instances on which the model is ready.",
            (Query(f"sum by (model) (electra_model_ready{{{MODEL}}})", "{{model}}"),),
            kind="stat",
        ),
        Panel(
            "Sequences/s",
            "Sequences that the engines computed.",
            (Query(f"sum(job_model:electra_sequences:rate5m{{{MODEL}}})", "sequences/s"),),
            kind="stat",
        ),
        Panel(
            "Rejected for load",
            "Fraction of requests rejected by a full queue. ElectraShedding is at 1 %.",
            (Query(f"max(job_model:electra_requests_shed:ratio_rate5m{{{MODEL}}})", "rejected"),),
            "percentunit",
            kind="stat",
            bound=0.01,
        ),
        Panel(
            "p99",
            "One request in a hundred takes longer. ElectraSlow is at 1.024 s.",
            (Query(f"max(job_model:electra_request_seconds:p99_5m{{{MODEL}}})", "p99"),),
            "s",
            kind="stat",
            bound=1.024,
        ),
        Panel(
            "Failed",
            "Fraction of requests that the service failed. ElectraErrors is at 1 %.",
            (Query(f"max(job_model:electra_requests_failed:ratio_rate5m{{{MODEL}}})", "failed"),),
            "percentunit",
            kind="stat",
            bound=0.01,
        ),
        Panel(
            "Queued work",
            "Estimated seconds for the engines to compute the queue, on average: the autoscaler's signal.",
            (Query(f"max(job_model:electra_queued_work_seconds:avg{{{MODEL}}})", "queued"),),
            "s",
            kind="stat",
            bound=0.5,
        ),
    ),
    "Traffic": (
        Panel(
            "Requests by code",
            "`ok` and the slugs of errors: the same on every transport.",
            (
                Query(
                    f'sum by (code) (rate(electra_requests_total{{{JOB}, model=~"$model|"}}[{WINDOW}])) > 0', "{{code}}"
                ),
            ),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Requests by transport and in flight",
            "Requests in flight run or wait. `oip_rest` and `oip_grpc` are those of the Open Inference Protocol.",
            (
                Query(
                    f'sum by (transport) (rate(electra_requests_total{{{JOB}, model=~"$model|"}}[{WINDOW}]))',
                    "{{transport}}/s",
                ),
                Query(f"sum by (transport) (electra_requests_in_flight{{{JOB}}})", "{{transport}} in flight"),
            ),
        ),
        Panel(
            "Requests by instance",
            "Should be similar. A ready instance at zero is ElectraNoTraffic.",
            (Query(f"sum by (instance) (rate(electra_requests_total{{{MODEL}}}[{WINDOW}]))", "{{instance}}"),),
            "reqps",
        ),
    ),
    "Latency by phase": (
        Panel(
            "Request",
            "From arrival to response, rejections included.",
            _quantiles("electra_request_seconds", 50, 95, 99),
            "s",
            bound=1.024,
        ),
        Panel(
            "In the queue",
            "From admission to the start of the batch. If this is most of the latency, capacity is short.",
            _quantiles("electra_queue_wait_seconds", 50, 95, 99),
            "s",
        ),
        Panel(
            "In the engine",
            "One batch. If this has grown and batches have not, the machine is slower.",
            _quantiles("electra_compute_seconds", 50, 95, 99),
            "s",
        ),
    ),
    "Queue": (
        Panel(
            "Queued work",
            "Estimated seconds to compute the queue of each instance. The autoscaler keeps the mean at 0.5 s.",
            (_gauge("electra_queued_work_seconds"),),
            "s",
            bound=0.5,
        ),
        Panel(
            "Queued and running sequences",
            "Bounded by batching.max_queue_sequences.",
            (
                Query(f"sum by (model) (electra_queued_sequences{{{MODEL}}})", "{{model}} queued"),
                Query(f"sum by (model) (electra_running_sequences{{{MODEL}}})", "{{model}} running"),
            ),
        ),
        Panel(
            "Queued positions",
            "Bounded by batching.max_queue_tokens.",
            (_gauge("electra_queued_tokens"),),
        ),
        Panel(
            "Oldest wait",
            "ElectraOldestWait is at 5 s for minutes.",
            (_gauge("electra_queue_oldest_wait_seconds"),),
            "s",
            bound=5,
        ),
    ),
    "Batches": (
        Panel(
            "Sequences in a batch",
            "Grows with load. Only ones: the service is idle, or texts are very long.",
            _buckets("electra_batch_sequences"),
            kind="heatmap",
        ),
        Panel(
            "Positions in a batch",
            "Padding included.",
            _buckets("electra_batch_tokens"),
            kind="heatmap",
        ),
        Panel(
            "Padding",
            "Fraction of computed positions that were padding.",
            (
                Query(
                    f"1 - sum by (model) (rate(electra_real_tokens_total{{{MODEL}}}[{WINDOW}]))"
                    f" / sum by (model) (rate(electra_padded_tokens_total{{{MODEL}}}[{WINDOW}]))",
                    "{{model}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Real positions/s",
            "Positions computed, without padding.",
            (Query(f"sum by (model) (rate(electra_real_tokens_total{{{MODEL}}}[{WINDOW}]))", "{{model}}"),),
        ),
    ),
    "Engine": (
        Panel(
            "Busy",
            "Fraction of time in which an engine computes. At 1 the queue grows. The autoscaler keeps the mean at 0.7.",
            (Query(f"instance_model:electra_engine_busy:ratio_rate5m{{{MODEL}}}", "{{instance}} {{model}}"),),
            "percentunit",
            bound=0.7,
        ),
        Panel(
            "Ready and alive",
            "Should be 1. Alive is 0 while an engine is stalled.",
            (
                Query(f"min by (model) (electra_model_ready{{{MODEL}}})", "{{model}} ready"),
                Query(f"min by (model) (electra_engine_alive{{{MODEL}}})", "{{model}} alive"),
            ),
        ),
        Panel(
            "Faults",
            "Each should be 0, and has an alert.",
            (
                Query(f"sum(increase(electra_engine_failures_total{{{MODEL}}}[{WINDOW}]))", "engine raised"),
                Query(f"sum(increase(electra_non_finite_rows_total{{{MODEL}}}[{WINDOW}]))", "non-finite rows"),
                Query(f"sum(increase(electra_out_of_memory_total{{{MODEL}}}[{WINDOW}]))", "out of memory"),
                Query(f"sum(electra_compilations_after_warm_up{{{MODEL}}})", "compilations after warm-up"),
                Query(f"sum(increase(electra_log_lines_dropped_total{{{JOB}}}[{WINDOW}]))", "log lines dropped"),
                Query(f"sum(instance:electra_event_loop_stalls:increase5m{{{JOB}}})", "event loop stalled"),
                Query(
                    f'sum(increase(electra_model_loads_total{{{MODEL}, outcome="failed"}}[{WINDOW}]))', "failed loads"
                ),
            ),
        ),
        Panel(
            "Load time",
            "From the start of loading to ready: the least time of a new instance.",
            (_gauge("electra_model_load_seconds"),),
            "s",
        ),
    ),
    "Process": (
        Panel(
            "Memory",
            "Resident. Grows while models load and up to the largest batch, then stays.",
            (Query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),),
            "bytes",
        ),
        Panel(
            "Queued text",
            "Characters queued for the tokenizer, of all models. Over the limit, requests are rejected.",
            (
                Query(f"electra_queued_characters{{{JOB}}}", "{{instance}}"),
                Query(f"max(electra_max_queued_characters{{{JOB}}})", "limit"),
            ),
        ),
        Panel(
            "Wait for the tokenizer",
            "Estimated queued work, and the time to the first turn of a request. ElectraTokenizerBusy is at 0.5 s.",
            (
                Query(f"electra_tokenization_work_seconds{{{JOB}}}", "{{instance}} work"),
                Query(
                    "histogram_quantile(0.99, sum by (le) "
                    f"(rate(electra_tokenization_wait_seconds_bucket{{{JOB}}}[{WINDOW}])))",
                    "p99",
                ),
            ),
            "s",
            bound=0.5,
        ),
        Panel(
            "Bytes in transit",
            "Requests being received, decoded requests and unsent responses. Over the budget, requests are rejected.",
            (
                Query(f"electra_transit_bytes{{{JOB}}}", "{{instance}}"),
                Query(f"max(electra_transit_max_bytes{{{JOB}}})", "budget"),
            ),
            "bytes",
        ),
        Panel(
            "Cores",
            "CPU seconds per second.",
            (Query(f"rate(process_cpu_seconds_total{{{JOB}}}[{WINDOW}])", "{{instance}}"),),
        ),
        Panel(
            "Lag of the event loop",
            "Delay of a timer. ElectraEventLoopStalled is at 1.024 s.",
            (Query(f"instance:electra_event_loop_lag_seconds:p99_5m{{{JOB}}}", "{{instance}} p99"),),
            "s",
            bound=1.024,
        ),
        Panel(
            "Connections",
            "Over the limit, idle ones close first; see ElectraConnectionsFull.",
            (
                Query(f"electra_connections{{{JOB}}}", "{{instance}} {{server}}"),
                Query(f"max by (server) (electra_max_connections{{{JOB}}})", "limit of {{server}}"),
            ),
        ),
        Panel(
            "Connections over the limit",
            "Closed to make room, accepted for probes only, or closed at once.",
            (
                Query(
                    f"sum by (server, action) (increase(electra_connection_limit_total{{{JOB}}}[{WINDOW}]))",
                    "{{server}} {{action}}",
                ),
            ),
        ),
        Panel(
            "Open files",
            "Most are connections.",
            (Query(f"process_open_fds{{{JOB}}}", "{{instance}}"),),
        ),
        Panel(
            "Uptime",
            "Falls to 0 at each restart.",
            (Query(f"time() - process_start_time_seconds{{{JOB}}}", "{{instance}}"),),
            "s",
        ),
        Panel(
            "Versions",
            "More than one only during a rollout.",
            (Query(f"count by (version) (electra_build_info{{{JOB}}})", "{{version}}"),),
        ),
    ),
}


def queries() -> Iterator[str]:
    """Every expression of every panel."""
    return (query.expr for panels in ROWS.values() for panel in panels for query in panel.queries)
