"""Part 6: on a GPU, the jax engine against torch and transformers with fused attention, both in bfloat16.

Full batches of fixed shapes give tokens a second, and the fraction of the card's own rate of large bfloat16 matrix
products. The natural mix gives real tokens a second. `--device cpu` runs the same in smaller shapes, to check that it
works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.agreement import compare, probe, require_agreement
from benchmarks.encoders.base import Encoder, EncoderSpec
from benchmarks.encoders.ours import build_ours
from benchmarks.encoders.questions import Encode, Time, start_encoder
from benchmarks.encoders.torch import build_torch
from benchmarks.flops import forward_flops
from benchmarks.measurements import Findings
from benchmarks.orders import in_arrival_order, real_tokens, sorted_by_length
from benchmarks.peak import Multiply, start_products
from benchmarks.rounds import interleave
from benchmarks.sizes import Effort, config_of
from benchmarks.weights import checkpoint_folder
from benchmarks.worker import Unavailable, Worker
from benchmarks.workload import encodings, natural_lengths
from electra_serve.tensors import DEFAULT_OUTPUTS, Output

NVIDIA: Final = Path("/dev/nvidiactl")
DTYPE: Final = "bfloat16"
JAX: Final = "jax engine"
OUTPUTS: Final = frozenset({Output.POOLED, Output.MEAN})
"""The last layer computes every position, and little is copied to the host, so that the card is compared."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bench:
    """Shapes that are measured on a kind of device.

    Attributes:
        torch_device: Torch's name for it.
        rows: Rows of full batches; the largest is also torch's batch of the natural mix.
        lengths: Lengths of full batches.
        products: (M, K, N) of the matrix products that give the device's rate.
        sequences: Number of sequences of the natural mix.
        window: Sequences that the jax engine's planner packs together.
    """

    torch_device: str
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    products: tuple[tuple[int, int, int], ...]
    sequences: int
    window: int


BENCHES: Final[Mapping[str, Bench]] = {
    "gpu": Bench(
        "cuda",
        rows=(32, 128),
        lengths=(16, 32, 64, 128, 256, 512),
        products=((8192, 8192, 8192), (16384, 4096, 16384)),
        sequences=4096,
        window=1024,
    ),
    "cpu": Bench("cpu", rows=(8,), lengths=(32, 128, 512), products=((1024, 1024, 4096),), sequences=32, window=32),
}


def measure_gpu(effort: Effort) -> Findings:
    """Measures both, or records that there is no GPU."""
    findings = Findings("gpu", effort.quick)
    if effort.device == "gpu" and not NVIDIA.exists():
        findings.skip("gpu", Unavailable(f"no NVIDIA GPU is here ({NVIDIA} does not exist)"))
        return findings
    findings.notes.append(f"Measured on: {effort.device}.")
    bench = BENCHES[effort.device]
    _measure_peak(bench, effort, findings)
    for size in effort.sizes:
        checkpoint_folder(size)
        with ExitStack() as stack:
            workers = _start(stack, size, effort.device, findings)
            _check_agreement(workers, findings, size)
            _measure_shapes(workers, bench, size, effort, findings)
            _measure_mix(workers, bench, size, effort, findings)
    return findings


def _specs(device: str) -> tuple[EncoderSpec, ...]:
    ours = partial(build_ours, engine="jax", dtype=DTYPE, device=device)
    theirs = partial(build_torch, dtype=DTYPE, device=BENCHES[device].torch_device)
    return (
        EncoderSpec("torch SDPA", DTYPE, ours=False, build=theirs),
        EncoderSpec(JAX, DTYPE, ours=True, build=ours),
    )


def _start(stack: ExitStack, size: str, device: str, findings: Findings) -> dict[str, Worker[Encoder]]:
    workers = {}
    for spec in _specs(device):
        try:
            workers[spec.name] = stack.enter_context(start_encoder(spec, size))
        except Unavailable as error:
            findings.skip(f"{spec.name}, {size}", error)
    return workers


def _check_agreement(workers: Mapping[str, Worker[Encoder]], findings: Findings, size: str) -> None:
    """Both compute in bfloat16, and differ by what that leaves."""
    answers = {name: worker.ask(Encode(probe(), DEFAULT_OUTPUTS)) for name, worker in workers.items()}
    for name, answer in answers.items():
        agreement = compare(answer, next(iter(answers.values())))
        findings.add("least_cosine", [agreement.cosine], encoder=name, size=size)
        require_agreement(name, DTYPE, agreement)


def _measure_peak(bench: Bench, effort: Effort, findings: Findings) -> None:
    with start_products("torch", bench.torch_device) as products:
        for shape in bench.products:
            samples = [products.ask(Multiply(DTYPE, shape)) for _ in range(effort.rounds)]
            findings.add("product_gflop_per_s", samples, dtype=DTYPE, product="x".join(map(str, shape)))


def _measure_shapes(
    workers: Mapping[str, Worker[Encoder]], bench: Bench, size: str, effort: Effort, findings: Findings
) -> None:
    cases: dict[str, Callable[[], float]] = {}
    for rows in bench.rows:
        for length in bench.lengths:
            question = Time([encodings([length] * rows)], OUTPUTS, least_s=effort.shape_s)
            cases |= {f"{name}|{rows}x{length}": partial(worker.ask, question) for name, worker in workers.items()}
    for case, seconds in interleave(cases, effort.rounds).items():
        name, shape = case.split("|")
        rows, length = map(int, shape.split("x"))
        flops = forward_flops(config_of(size), rows, length)
        labels = {"encoder": name, "size": size, "shape": shape}
        findings.add("tokens_per_s", [rows * length / s for s in seconds], **labels)
        findings.add("gflop_per_s", [flops / s / 1e9 for s in seconds], **labels)


def _measure_mix(
    workers: Mapping[str, Worker[Encoder]], bench: Bench, size: str, effort: Effort, findings: Findings
) -> None:
    """Torch pads batches of neighbors in length; the jax engine packs windows in order of arrival."""
    waiting = encodings(natural_lengths(bench.sequences))
    rows = max(bench.rows)
    orders = {
        name: (f"windows of {bench.window}", in_arrival_order(waiting, bench.window))
        if name == JAX
        else (f"length-sorted, {rows}", sorted_by_length(waiting, rows))
        for name in workers
    }
    cases: dict[str, Callable[[], float]] = {
        name: partial(worker.ask, Time(orders[name][1], OUTPUTS)) for name, worker in workers.items()
    }
    interleave(cases, 1)
    for name, seconds in interleave(cases, effort.rounds).items():
        order, windows = orders[name]
        findings.add("tokens_per_s", [real_tokens(windows) / s for s in seconds], encoder=name, size=size, order=order)
