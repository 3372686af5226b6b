"""Part 2: services under load, ours and their alternatives.

All services run at once, and all but one are stopped (`fleet`). Each round loads every service once with each of its
scenarios. It also measures our engines offline with the same sequences, which is the upper limit of a service.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from benchmarks.memory import group_memory
from benchmarks.orders import in_arrival_order
from benchmarks.prepare import prepare
from benchmarks.rounds import interleave
from benchmarks.sampling import Sample, load_once, record
from benchmarks.scenarios import SEQUENCES, Scenario, run_scenario
from benchmarks.scrape import scrape
from benchmarks.services import CONTENDERS, SIZE, contender, one_engine_service, our_service
from benchmarks.sizes import Effort
from benchmarks.worker import Unavailable, Worker
from benchmarks.workload import encodings, natural_lengths
from electra_serve.tensors import Output, RowOutput

LOADS: Final = ((1, 1), (8, 1), (64, 1), (4, 32))
"""Clients, and sequences in each request."""
FULL: Final = (("openvino", "bfloat16"), ("openvino", "float32"))
"""Engines that are measured with every scenario."""
BRIEF: Final = (("openvino", "int8"), ("tensorflow", "float32"))
"""Engines that are measured with pooled outputs only."""
WINDOWS: Final = (64, 128, SEQUENCES)
"""Numbers of sequences that are packed together; the offline best is one of them."""
WARM_LOADS: Final = ("64x1", "4x32")
"""Loads of every service before anything is counted."""
FORWARD_LENGTH: Final = 32
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Contest:
    """Services and engines that are compared.

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
        fleet = stack.enter_context(start_fleet(_specs(list(engines))))
        contest = Contest(fleet, engines)
        log.info("%d services are ready", len(fleet))
        with _growth(fleet, findings):
            check_responses(fleet, findings)
            _measure_loads(contest, effort, findings)
        _measure_forward(contest, effort, findings)
    return findings


def scenarios(spec: ServiceSpec, *outputs: str) -> list[Scenario]:
    """Returns the scenarios of a service with the natural mix."""
    transports = ("rest", "grpc") if spec.grpc else ("rest",)
    return [
        Scenario(transport, output, clients, rows)
        for output in outputs
        for clients, rows in LOADS
        for transport in transports
    ]


def _scenarios(spec: ServiceSpec) -> list[Scenario]:
    full = spec.name in {f"{engine}/{dtype}" for engine, dtype in FULL} or not spec.metrics
    return scenarios(spec, *(("pooled_output", "sequence_output") if full else ("pooled_output",)))


def _specs(engines: Sequence[str]) -> list[ServiceSpec]:
    specs = [our_service(*name.split("/")) for name in engines]
    specs += [one_engine_service("bfloat16")] if "openvino/bfloat16" in engines else []
    return [*specs, *map(contender, CONTENDERS)]


@contextmanager
def _growth(fleet: Mapping[str, RunningService], findings: Findings) -> Iterator[None]:
    """Records each service's memory at READY, and its growth and batches within the context."""
    ready_mib = {name: group_memory(service.pid).rss_mib for name, service in fleet.items()}
    yield
    for name, service in fleet.items():
        findings.add("rss_ready_mib", [ready_mib[name]], service=name)
        findings.add("rss_growth_mib", [group_memory(service.pid).rss_mib - ready_mib[name]], service=name)
        if service.spec.metrics:
            with resumed(service):
                findings.add("batches", [scrape(service).batches], service=name)


def _start_engines(stack: ExitStack, findings: Findings) -> dict[str, Worker[Encoder]]:
    engines = {}
    for engine, dtype in (*FULL, *BRIEF):
        spec = our_spec(engine, dtype)
        try:
            engines[spec.name] = stack.enter_context(start_encoder(spec, SIZE))
        except Unavailable as error:
            findings.skip(spec.name, error)
    return engines


def check_responses(fleet: Mapping[str, RunningService], findings: Findings) -> None:
    """Checks that all services of one size agree before any is timed.

    The reference is a contender, if there is one, in float32 if possible.

    Raises:
        Disagreement: One of them does not agree.
    """
    responses = {}
    for name, service in fleet.items():
        with resumed(service):
            responses[name] = _response(service)
    specs = [service.spec for service in fleet.values()]
    for spec in specs:
        of_size = (other for other in specs if other.size == spec.size)
        reference = min(of_size, key=lambda other: (other.metrics, other.dtype != "float32"))
        agreement = compare(responses[spec.name], responses[reference.name])
        findings.add("largest_difference", [agreement.difference], service=spec.name)
        findings.add("least_cosine", [agreement.cosine], service=spec.name)
        require_agreement(spec.name, spec.dtype, agreement)


def _response(service: RunningService) -> list[RowOutput]:
    """Returns the response of a service to the probe."""
    rows = [encoding.token_ids.tolist() for encoding in probe()]
    body = json.dumps({"token_ids": rows, "outputs": sorted(OUTPUTS)}).encode()
    found = json.loads(service.post("/v1/encode", body))
    pairs = zip(found["sequence_output"], found["pooled_output"], strict=True)
    return [RowOutput(np.array(states, np.float32), np.array(pooled, np.float32)) for states, pooled in pairs]


def _measure_forward(contest: Contest, effort: Effort, findings: Findings) -> None:
    """Measures what the service adds to the engine's time for one sequence of 32."""
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
    """Measures every service with each of its scenarios, and our engines without a service."""
    best = _offline_cases(contest)
    for engine in best.values():  # once without counting, since some engines prepare each shape at its first use
        engine()
    seconds: dict[tuple[str, int], list[float]] = {case: [] for case in best}

    def run_offline() -> None:
        for offline in best:
            seconds[offline].append(best[offline]())

    for (name, scenario), samples in load_in_rounds(contest.fleet, _scenarios, effort, run_offline).items():
        record(findings, samples, service=name, **scenario.labels)
    for (name, window), found in seconds.items():
        findings.add("sequences_per_s", [SEQUENCES / s for s in found], engine=name, window=window)


def load_in_rounds(
    fleet: Mapping[str, RunningService],
    scenarios_of: Callable[[ServiceSpec], Iterable[Scenario]],
    effort: Effort,
    before_round: Callable[[], None] = lambda: None,
) -> dict[tuple[str, Scenario], list[Sample]]:
    """Loads every service with each of its scenarios; services with the same scenario follow each other.

    Returns:
        The samples of each service and scenario, one per round.
    """
    cases = {
        (service.spec.name, scenario): partial(load_once, service, scenario, effort.load_factor)
        for service in fleet.values()
        for scenario in scenarios_of(service.spec)
    }
    for (_, scenario), load in cases.items():  # once without counting, for the same reason
        if scenario.transport == "rest" and scenario.load in WARM_LOADS:
            load()
    ordered = sorted(cases, key=lambda case: (case[1].output, case[1].load, case[1].mix, case[1].transport))
    sampled: dict[tuple[str, Scenario], list[Sample]] = {case: [] for case in ordered}
    for number in range(effort.mix_rounds):
        log.info("round %d of %d: %d loads", number + 1, effort.mix_rounds, len(ordered))
        before_round()
        for case in ordered if number % 2 == 0 else reversed(ordered):
            sampled[case].append(cases[case]())
    return sampled


def _offline_cases(contest: Contest) -> dict[tuple[str, int], Callable[[], float]]:
    """Returns measurements of our engines alone, on the clients' sequences, for pooled outputs."""
    waiting = encodings(natural_lengths(SEQUENCES))
    pooled = frozenset({Output.POOLED})
    return {
        (name, window): partial(worker.ask, Time(in_arrival_order(waiting, window), pooled))
        for name, worker in contest.engines.items()
        for window in WINDOWS
    }


def _milliseconds(worker: Worker[Encoder], question: Time) -> float:
    return worker.ask(question) * 1e3


def _p50_ms(service: RunningService, scenario: Scenario, factor: float) -> float:
    with resumed(service):
        return float(run_scenario(service, scenario, factor)["p50_ms"])
