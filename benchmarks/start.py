"""Part 5: time from a process' start to READY, and its memory then.

READY means that `/readyz` returns 200: the model is loaded, compiled, warm and timed. Files are in the page cache, as
when a container restarts. Each engine starts several times, in turn.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.fleet import RunningService, ServiceFailed, ServiceSpec
from benchmarks.measurements import Findings
from benchmarks.memory import Memory, group_memory
from benchmarks.prepare import prepare
from benchmarks.rounds import interleave
from benchmarks.services import CONTENDERS, JAX_IS_SLOW_TO_START, SIZE, artifact_service, contender, our_service
from benchmarks.sizes import Effort
from benchmarks.worker import Unavailable
from electra_serve.presets.artifact import DTYPES

ENGINES: Final = (
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("tensorflow", "float32"),
    ("tensorflow", "bfloat16"),
)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """One start.

    Attributes:
        seconds: Time from the process' start to READY.
        memory: Memory of the process and its children at READY.
    """

    seconds: float
    memory: Memory


def measure_start(effort: Effort) -> Findings:
    """Starts every engine that can be started here several times."""
    findings = Findings("start", effort.quick)
    findings.skip("jax/float32", Unavailable(JAX_IS_SLOW_TO_START))
    prepare((SIZE,))
    cases = {spec.name: partial(_start, spec) for spec in _specs() if _can_start(spec, findings)}
    for name, starts in interleave(cases, effort.starts).items():
        findings.add("start_s", [started.seconds for started in starts], service=name)
        findings.add("rss_mib", [started.memory.rss_mib for started in starts], service=name)
        findings.add("pss_mib", [started.memory.pss_mib for started in starts], service=name)
    return findings


def _specs() -> list[ServiceSpec]:
    return [
        *(our_service(engine, dtype) for engine, dtype in ENGINES),
        *(artifact_service(dtype) for dtype in DTYPES),
        *(contender(name) for name in CONTENDERS),
    ]


def _can_start(spec: ServiceSpec, findings: Findings) -> bool:
    """Starts it once without counting, to fill the page cache."""
    try:
        _start(spec)
    except ServiceFailed as error:
        findings.skip(spec.name, error)
        return False
    return True


def _start(spec: ServiceSpec) -> Started:
    began = time.perf_counter()
    service = RunningService(spec)
    try:
        service.wait_ready()
        seconds = time.perf_counter() - began
        memory = group_memory(service.pid)
    finally:
        service.close()
    log.info("%s: %.2f s", spec.name, seconds)
    return Started(seconds, memory)
