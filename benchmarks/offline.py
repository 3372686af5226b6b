"""Part 1: encoders without a service.

Full batches of fixed shapes give GFLOP/s and the fraction of the machine's matrix peak. The natural mix, in windows of
three orders (`orders`), gives real tokens and sequences a second, and positions computed per real token. Others pad a
window to its longest sequence; ours pack it. All compute both default outputs, and so every position of the last layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

from benchmarks.agreement import OUTPUTS, compare, probe, require_agreement
from benchmarks.encoders.base import Encoder, EncoderSpec
from benchmarks.encoders.questions import CountPositions, Encode, Time, start_encoder
from benchmarks.encoders.roster import OTHERS, OURS, REFERENCE
from benchmarks.flops import forward_flops
from benchmarks.machine import cores
from benchmarks.measurements import Findings
from benchmarks.orders import Batches, in_arrival_order, one_by_one, real_tokens, sorted_by_length
from benchmarks.peak import SHAPES as PRODUCTS
from benchmarks.peak import Multiply, start_products
from benchmarks.prepare import prepare
from benchmarks.rounds import interleave
from benchmarks.sizes import Effort, config_of
from benchmarks.worker import Unavailable, Worker
from benchmarks.workload import encodings, natural_lengths

SHAPES: Final = ((1, 32), (1, 128), (8, 32), (8, 128), (16, 64), (4, 512))
"""Rows and length of the fixed batches."""
WINDOW: Final = 64
ROWS: Final = 32
FEW_ROWS: Final = 8
"""Rows of a smaller batch, which needs less padding."""
LIBRARIES: Final = {"openvino": ("float32", "bfloat16", "int8"), "torch": ("float32", "bfloat16")}
"""Libraries and dtypes of the matrix products that give the machine's peak."""
Workers = Mapping[EncoderSpec, Worker[Encoder]]
log = logging.getLogger(__name__)


def measure_offline(effort: Effort) -> Findings:
    """Measures every encoder that can be built here."""
    findings = Findings("offline", effort.quick)
    prepare(effort.sizes)
    for size in effort.sizes:
        with ExitStack() as stack:
            workers = start_all(stack, size, findings)
            check_agreement(workers, size, findings)
            measure_shapes(workers, size, effort, findings)
            measure_orders(workers, size, effort, findings)
    return findings


def start_all(stack: ExitStack, size: str, findings: Findings) -> Workers:
    """Starts every encoder that can be built here, and records the reasons for the others."""
    workers = {}
    for spec in (spec for spec in (*OURS, *OTHERS) if size in spec.sizes):
        try:
            workers[spec] = stack.enter_context(start_encoder(spec, size))
            log.info("%s: %s has started", size, spec.name)
        except Unavailable as error:
            findings.skip(f"{spec.name}, {size}", error)
    return workers


def check_agreement(workers: Workers, size: str, findings: Findings) -> None:
    """Compares all encoders with the reference before anything is timed.

    Raises:
        Disagreement: One of them does not agree.
    """
    question = Encode(probe(), OUTPUTS)
    answers = {spec: worker.ask(question) for spec, worker in workers.items()}
    expected = next(answer for spec, answer in answers.items() if spec.name == REFERENCE)
    for spec, answer in answers.items():
        agreement = compare(answer, expected)
        findings.add("largest_difference", [agreement.difference], encoder=spec.name, size=size)
        findings.add("least_cosine", [agreement.cosine], encoder=spec.name, size=size)
        require_agreement(spec.name, spec.dtype, agreement)


def measure_shapes(workers: Workers, size: str, effort: Effort, findings: Findings) -> None:
    """Measures full batches of fixed shapes, and the machine's matrix peak in the same rounds."""
    cases: dict[str, Callable[[], float]] = {}
    for rows, length in SHAPES:
        question = Time([encodings([length] * rows)] * _copies(rows), OUTPUTS, least_s=effort.shape_s)
        cases |= {f"{spec.name}|{rows}x{length}": partial(worker.ask, question) for spec, worker in workers.items()}
    log.info("%s: fixed shapes, %d cases, %d rounds", size, len(cases), effort.rounds)
    with start_peak() as products:
        samples = interleave({**products, **cases}, effort.rounds)
    for name in products:
        library, dtype, product = name.split("|")
        labels = {"library": library, "dtype": dtype, "product": product, "size": size}
        findings.add("product_gflop_per_s", samples[name], **labels)
    for name in cases:
        encoder, shape = name.split("|")
        rows, length = map(int, shape.split("x"))
        batch_s = [s / _copies(rows) for s in samples[name]]
        flops = forward_flops(config_of(size), rows, length)
        labels = {"encoder": encoder, "size": size, "shape": shape}
        findings.add("batch_ms", [1e3 * s for s in batch_s], **labels)
        findings.add("gflop_per_s", [flops / s / 1e9 for s in batch_s], **labels)
        findings.add("tokens_per_s", [rows * length / s for s in batch_s], **labels)


def _copies(rows: int) -> int:
    """Copies of a batch: one per core for several rows, since ours may run on an engine each."""
    return cores() if rows > 1 else 1


@contextmanager
def start_peak() -> Iterator[dict[str, Callable[[], float]]]:
    """Yields measurements of the rate of matrix products, by library, dtype and shape."""
    with ExitStack() as stack:
        libraries = {name: stack.enter_context(start_products(name)) for name in LIBRARIES}
        yield {
            f"{library}|{dtype}|{'x'.join(map(str, shape))}": partial(worker.ask, Multiply(dtype, shape))
            for library, worker in libraries.items()
            for dtype in LIBRARIES[library]
            for shape in PRODUCTS
        }


def measure_orders(workers: Workers, size: str, effort: Effort, findings: Findings) -> None:
    """Measures the natural mix in windows of three orders."""
    waiting = encodings(natural_lengths(effort.sequences[size]))
    orders: dict[str, Batches] = {
        f"arrival order, {WINDOW}": in_arrival_order(waiting, WINDOW),
        f"arrival order, {ROWS}": in_arrival_order(waiting, ROWS),
        f"length-sorted, {ROWS}": sorted_by_length(waiting, ROWS),
        f"length-sorted, {FEW_ROWS}": sorted_by_length(waiting, FEW_ROWS),
        "one by one": one_by_one(waiting),
    }
    cases: dict[str, Callable[[], float]] = {}
    for order, batches in orders.items():
        question = Time(batches, OUTPUTS)
        for spec, worker in workers.items():
            cases[f"{spec.name}|{order}"] = partial(worker.ask, question)
    log.info("%s: natural mix, %d cases, %d rounds", size, len(cases), effort.mix_rounds)
    interleave(cases, 1)  # each shape once, since some encoders compile for it
    for spec, worker in workers.items():
        for order, windows in orders.items():
            padded = worker.ask(CountPositions(windows)) / real_tokens(windows)
            findings.add("padded_per_real", [padded], encoder=spec.name, size=size, order=order)
    for name, seconds in interleave(cases, effort.mix_rounds).items():
        encoder, order = name.split("|")
        labels = {"encoder": encoder, "size": size, "order": order}
        findings.add("tokens_per_s", [real_tokens(orders[order]) / s for s in seconds], **labels)
        findings.add("sequences_per_s", [len(waiting) / s for s in seconds], **labels)
