"""Part 3: the effect of single ideas, each removed while everything else stays.

    planner        the service as it is, against the same with batches in order of arrival, one sequence per row
    [CLS] alone    engines asked for outputs that need position 0 of the last layer only, against all positions

Each runs on every engine, so that the rows of a table compare engines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final

from benchmarks.encoders.base import Encoder
from benchmarks.encoders.questions import Time, start_encoder
from benchmarks.encoders.roster import our_spec
from benchmarks.fleet import start_fleet
from benchmarks.machine import cores
from benchmarks.measurements import Findings
from benchmarks.orders import Batches, in_arrival_order
from benchmarks.prepare import prepare
from benchmarks.rounds import interleave
from benchmarks.sampling import Sample, load_once, record
from benchmarks.scenarios import Scenario
from benchmarks.services import JAX_IS_SLOW_TO_START, PADDING_MODULE, SIZE, our_service
from benchmarks.sizes import Effort
from benchmarks.worker import Unavailable, Worker
from benchmarks.workload import encodings, natural_lengths
from electra_serve.tensors import Output, Outputs

ENGINES: Final = (
    ("openvino", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "int8"),
    ("tensorflow", "float32"),
)
SCENARIOS: Final = tuple(Scenario("rest", "pooled_output", clients, rows) for clients, rows in ((64, 1), (4, 32)))
LAST_LAYERS: Final[Mapping[str, Outputs]] = {
    "[CLS] alone": frozenset({Output.POOLED}),
    "every position": frozenset({Output.POOLED, Output.MEAN}),
}
WINDOW: Final = 64
log = logging.getLogger(__name__)


def measure_ablations(effort: Effort) -> Findings:
    """Measures every engine that can be built here."""
    findings = Findings("ablations", effort.quick)
    findings.skip("jax/float32", Unavailable(JAX_IS_SLOW_TO_START))
    prepare((SIZE,))
    with ExitStack() as stack:
        workers = _start(stack, findings)
        _measure_last_layer(workers, effort, findings)
        names = list(workers)
    _measure_planner(names, effort, findings)
    return findings


def _start(stack: ExitStack, findings: Findings) -> dict[str, Worker[Encoder]]:
    workers = {}
    for engine, dtype in ENGINES:
        spec = our_spec(engine, dtype)
        try:
            workers[spec.name] = stack.enter_context(start_encoder(spec, SIZE))
        except Unavailable as error:
            findings.skip(spec.name, error)
    return workers


def _measure_last_layer(workers: Mapping[str, Worker[Encoder]], effort: Effort, findings: Findings) -> None:
    waiting = encodings(natural_lengths(effort.sequences[SIZE]))
    workloads: dict[str, Batches] = {
        "8x32": [encodings([32] * 8)] * cores(),
        "8x128": [encodings([128] * 8)] * cores(),
        "natural": in_arrival_order(waiting, WINDOW),
    }
    cases: dict[str, Callable[[], float]] = {
        f"{name}|{layer}|{workload}": partial(worker.ask, Time(batches, outputs, least_s=effort.shape_s))
        for workload, batches in workloads.items()
        for name, worker in workers.items()
        for layer, outputs in LAST_LAYERS.items()
    }
    interleave(cases, 1)  # each shape once, since some engines compile for it
    for case, seconds in interleave(cases, effort.rounds).items():
        name, layer, workload = case.split("|")
        sequences = sum(len(batch) for batch in workloads[workload])
        findings.add("sequences_per_s", [sequences / s for s in seconds], engine=name, last_layer=layer, mix=workload)


def _measure_planner(names: list[str], effort: Effort, findings: Findings) -> None:
    """The padding service has the same processes, threads and transports; see `benchmarks.padding_service`."""
    planners = {}
    for name in names:
        engine, dtype = name.split("/")
        for planner, spec in {
            "by cost": our_service(engine, dtype),
            "one per row, in arrival order": our_service(
                engine, dtype, module=PADDING_MODULE, name=f"{name} one per row"
            ),
        }.items():
            planners[spec] = (name, planner)
    with start_fleet(list(planners)) as fleet:
        cases: dict[str, Callable[[], Sample]] = {
            f"{spec.name}|{number}": partial(load_once, fleet[spec.name], scenario, effort.load_factor)
            for number, scenario in enumerate(SCENARIOS)
            for spec in planners
        }
        interleave(cases, 1)  # some engines prepare each shape at its first use
        samples = interleave(cases, effort.mix_rounds)
    for spec, (name, planner) in planners.items():
        for number, scenario in enumerate(SCENARIOS):
            record(findings, samples[f"{spec.name}|{number}"], engine=name, planner=planner, **scenario.labels)
