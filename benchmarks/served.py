"""Part 2: services under load, ours and what a user would pick instead.

All services are alive at once, and all but one stand still (`fleet`). In each round every service is loaded once with
each scenario that is meant for it. What our engines do offline with the same sequences, sorted by length, is measured
in the same rounds: it is the most that a service around them could reach.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from benchmarks.agreement import OUTPUTS, compare, probe, require_agreement
from benchmarks.encoders.base import Encoder
from benchmarks.encoders.questions import Time, start_encoder
from benchmarks.encoders.roster import our_spec
from benchmarks.fleet import RunningService, ServiceSpec, resumed, start_fleet
from benchmarks.measurements import Findings
from benchmarks.orders import sorted_by_length
from benchmarks.prepare import prepare
from benchmarks.rounds import interleave
from benchmarks.scenarios import SEQUENCES, Scenario, run_scenario
from benchmarks.scrape import Counted, scrape
from benchmarks.services import CONTENDERS, REPLICAS, SIZE, contender, our_service, replicas_service
from benchmarks.sizes import Effort
from benchmarks.worker import Unavailable, Worker
from benchmarks.workload import encodings, natural_lengths
from electra_serve.tensors import ModelOutput, Output

LOADS: Final = ((1, 1), (8, 1), (64, 1), (4, 32))
"""Clients, and sequences in each request."""
FULL: Final = (("openvino", "bfloat16"), ("openvino", "float32"))
"""Measured with every scenario."""
BRIEF: Final = (("openvino", "int8"), ("tensorflow", "float32"))
"""Measured with pooled outputs only."""
SORTED_ROWS: Final = (4, 8, 16, 32)
"""Batches that the offline best is sought among."""
WARM_LOADS: Final = ("64x1", "4x32")
"""That every service has before anything is counted."""
FORWARD_LENGTH: Final = 32
FIGURES: Final = ("sequences_per_s", "p50_ms", "p90_ms", "p99_ms", "generator_cpu")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one service did under one load.

    Attributes:
        figures: Those of `FIGURES` that there are: a service that answered nothing has no latencies.
        errors: How many requests were not answered as they should be.
        counted: What the service counted meanwhile; None where it does not tell, or ran nothing.
    """

    figures: Mapping[str, float]
    errors: int
    counted: Counted | None


@dataclass(slots=True)
class Contest:
    """Who takes part.

    Attributes:
        fleet: The services, by name.
        engines: Our engines without a service, by the same names.
    """

    fleet: Mapping[str, RunningService]
    engines: Mapping[str, Worker[Encoder]] = field(default_factory=dict)


def measure_served(effort: Effort) -> Findings:
    """Measures every service that can be started here."""
    findings = Findings("served", effort.quick)
    prepare((SIZE,))
    with ExitStack() as stack:
        engines = _start_engines(stack, findings)
        specs = [our_service(*name.split("/")) for name in engines]
        specs += [replicas_service("bfloat16")] if "openvino/bfloat16" in engines else []
        specs += [contender(name) for name in CONTENDERS]
        contest = Contest(stack.enter_context(start_fleet(specs)), engines)
        log.info("%d services are ready", len(contest.fleet))
        _check_answers(contest, findings)
        _measure_loads(contest, effort, findings)
        _measure_forward(contest, effort, findings)
    return findings


def scenarios_of(spec: ServiceSpec) -> list[Scenario]:
    """The scenarios that are meant for a service."""
    brief = spec.name in {f"{engine}/{dtype}" for engine, dtype in BRIEF} or spec.name.startswith(REPLICAS)
    transports = ("rest", "grpc") if spec.grpc else ("rest",)
    outputs = ("pooled_output",) if brief else ("pooled_output", "sequence_output")
    return [
        Scenario(transport, output, clients, rows)
        for output in outputs
        for clients, rows in LOADS
        for transport in transports
    ]


def load_once(service: RunningService, scenario: Scenario, factor: float) -> Sample:
    """One sample: a service under load, and what it counted meanwhile."""
    with resumed(service):
        before = scrape(service) if service.spec.metrics else None
        figures = run_scenario(service, scenario, factor)
        counted = scrape(service).since(before) if before is not None else None
    log.info("%s, %s: %.0f/s", service.spec.name, " ".join(scenario.labels.values()), figures["sequences_per_s"])
    numbers = {name: float(figures[name]) for name in FIGURES if figures[name] is not None}
    return Sample(numbers, sum(figures["errors"].values()), counted)


def record(findings: Findings, samples: Sequence[Sample], **labels: str | int) -> None:
    """Adds the samples of one service and scenario to `findings`."""
    for name in FIGURES:
        findings.add(name, [sample.figures[name] for sample in samples if name in sample.figures], **labels)
    findings.add("errors", [sample.errors for sample in samples], **labels)
    counted = [sample.counted for sample in samples if sample.counted is not None]
    findings.add("padded_per_real", [found.padded_per_real for found in counted], **labels)
    findings.add("batch_rows", [found.batch_rows for found in counted], **labels)
    findings.add("compilations", [found.compilations for found in counted], **labels)


def _start_engines(stack: ExitStack, findings: Findings) -> dict[str, Worker[Encoder]]:
    engines = {}
    for engine, dtype in (*FULL, *BRIEF):
        spec = our_spec(engine, dtype)
        try:
            engines[spec.name] = stack.enter_context(start_encoder(spec, SIZE))
        except Unavailable as error:
            findings.skip(spec.name, error)
    return engines


def _check_answers(contest: Contest, findings: Findings) -> None:
    """All services must answer the same before any is timed; the first float32 one of the contenders' is the reference.

    Raises:
        Disagreement: One of them answers something else.
    """
    answers = {}
    for name, service in contest.fleet.items():
        with resumed(service):
            answers[name] = _answer(service)
    expected = answers[next(iter(CONTENDERS))]
    for name, answer in answers.items():
        agreement = compare(answer, expected)
        findings.add("largest_difference", [agreement.difference], service=name)
        findings.add("least_cosine", [agreement.cosine], service=name)
        require_agreement(name, name.partition("/")[2] or "float32", agreement)


def _answer(service: RunningService) -> ModelOutput:
    """What a service answers to the probe, as one padded batch."""
    rows = [encoding.token_ids.tolist() for encoding in probe()[0]]
    body = json.dumps({"token_ids": rows, "outputs": sorted(OUTPUTS)}).encode()
    found = json.loads(service.post("/v1/encode", body))
    pooled = np.array(found["pooled_output"], np.float32)
    sequence = np.zeros((len(rows), max(map(len, rows)), pooled.shape[1]), np.float32)
    for row, states in enumerate(found["sequence_output"]):
        sequence[row, : len(states)] = states
    return ModelOutput(sequence_output=sequence, pooled_output=pooled)


def _measure_forward(contest: Contest, effort: Effort, findings: Findings) -> None:
    """One client with one sequence of 32: what the service adds to the engine's own time for it."""
    question = Time([encodings([FORWARD_LENGTH])], frozenset({Output.POOLED}), least_s=effort.shape_s)
    cases: dict[str, Callable[[], float]] = {}
    for name, worker in contest.engines.items():
        cases[f"{name}|engine"] = partial(_milliseconds, worker, question)
        for transport in ("rest", "grpc"):
            scenario = Scenario(transport, "pooled_output", 1, 1, length=FORWARD_LENGTH)
            cases[f"{name}|{transport}"] = partial(_p50_ms, contest.fleet[name], scenario, effort.load_factor)
    samples = interleave(cases, effort.rounds)
    for name in contest.engines:
        alone = samples[f"{name}|engine"]
        findings.add("forward_ms", alone, service=name)
        for transport in ("rest", "grpc"):
            served = samples[f"{name}|{transport}"]
            added = [ms - forward for ms, forward in zip(served, alone, strict=True)]
            findings.add("added_ms", added, service=name, transport=transport)


def _measure_loads(contest: Contest, effort: Effort, findings: Findings) -> None:
    """Every service with each of its scenarios; services with the same scenario come one after the other."""
    cases = {
        (service.spec.name, scenario): partial(load_once, service, scenario, effort.load_factor)
        for service in contest.fleet.values()
        for scenario in scenarios_of(service.spec)
    }
    ordered = sorted(cases, key=lambda case: (case[1].output, case[1].load, case[1].transport))
    best = _offline_cases(contest)
    _warm(contest, best.values(), effort)
    sampled: dict[tuple[str, Scenario], list[Sample]] = {case: [] for case in ordered}
    seconds: dict[tuple[str, int], list[float]] = {case: [] for case in best}
    for number in range(effort.mix_rounds):
        log.info("round %d of %d: %d loads", number + 1, effort.mix_rounds, len(ordered))
        for offline in best:
            seconds[offline].append(best[offline]())
        for case in ordered if number % 2 == 0 else reversed(ordered):
            sampled[case].append(cases[case]())
    for (name, scenario), samples in sampled.items():
        record(findings, samples, service=name, **scenario.labels)
    for (name, rows), found in seconds.items():
        findings.add("sequences_per_s", [SEQUENCES / s for s in found], engine=name, sorted_rows=rows)


def _warm(contest: Contest, offline: Iterable[Callable[[], float]], effort: Effort) -> None:
    """Uncounted load on all: some engines keep what they make for a shape when it first comes."""
    for engine in offline:
        engine()
    for service in contest.fleet.values():
        for scenario in scenarios_of(service.spec):
            if scenario.transport == "rest" and scenario.load in WARM_LOADS:
                load_once(service, scenario, effort.load_factor)


def _offline_cases(contest: Contest) -> dict[tuple[str, int], Callable[[], float]]:
    """Our engines by themselves, on what the clients send, for pooled outputs."""
    waiting = encodings(natural_lengths(SEQUENCES))
    pooled = frozenset({Output.POOLED})
    return {
        (name, rows): partial(worker.ask, Time(sorted_by_length(waiting, rows), pooled))
        for name, worker in contest.engines.items()
        for rows in SORTED_ROWS
    }


def _milliseconds(worker: Worker[Encoder], question: Time) -> float:
    return worker.ask(question) * 1e3


def _p50_ms(service: RunningService, scenario: Scenario, factor: float) -> float:
    with resumed(service):
        return float(run_scenario(service, scenario, factor)["p50_ms"])
