"""Part 6: on a GPU, the jax engine against torch and transformers: SDPA, and `torch.compile`; all in bfloat16.

Full batches of fixed shapes give tokens a second, and the fraction of the card's own rate of large bfloat16 matrix
products. The natural mix gives real tokens a second. `--device cpu` runs the same in smaller shapes, to check that it
works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
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
SDPA: Final = "torch SDPA"
COMPILED: Final = "torch.compile"
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
        max_batch_tokens: Of the jax engine's batches; None: its default.
    """

    torch_device: str
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    products: tuple[tuple[int, int, int], ...]
    sequences: int
    window: int
    max_batch_tokens: int | None = None


BENCHES: Final[Mapping[str, Bench]] = {
    "gpu": Bench(
        "cuda",
        rows=(32, 64, 128),
        lengths=(16, 32, 64, 128, 256, 512),
        products=((8192, 8192, 8192), (16384, 4096, 16384)),
        sequences=4096,
        window=1024,
    ),
    "cpu": Bench("cpu", rows=(8,), lengths=(32, 128, 512), products=((1024, 1024, 4096),), sequences=32, window=32),
}


def measure_gpu(effort: Effort) -> Findings:
    """Measures all encoders, or records that there is no GPU."""
    findings = Findings("gpu", effort.quick)
    if effort.device == "gpu" and not NVIDIA.exists():
        findings.skip("gpu", Unavailable(f"no NVIDIA GPU is here ({NVIDIA} does not exist)"))
        return findings
    findings.notes.append(f"Measured on: {effort.device}.")
    bench = BENCHES[effort.device]
    measure_peak(bench, effort, findings)
    for size in effort.sizes:
        compare_encoders(encoder_specs(bench, effort.device), bench, size, effort, findings)
    return findings


def encoder_specs(bench: Bench, device: str) -> tuple[EncoderSpec, ...]:
    """Returns torch twice and the jax engine, on `gpu` or `cpu`."""
    ours = partial(build_ours, engine="jax", dtype=DTYPE, device=device, max_batch_tokens=bench.max_batch_tokens)
    theirs = partial(build_torch, dtype=DTYPE, device=bench.torch_device)
    return (
        EncoderSpec(SDPA, DTYPE, ours=False, build=theirs),
        EncoderSpec(COMPILED, DTYPE, ours=False, build=partial(theirs, compiled=True)),
        EncoderSpec(JAX, DTYPE, ours=True, build=ours),
    )


def compare_encoders(
    specs: Sequence[EncoderSpec], bench: Bench, size: str, effort: Effort, findings: Findings, **labels: str
) -> None:
    """Measures encoders in turns, at fixed shapes and on the natural mix.

    Args:
        specs: Those to compare; one that cannot be built is skipped.
        bench: Their shapes and sequences.
        size: The architecture.
        effort: How often.
        findings: Receives what is measured.
        labels: Added to each measurement.

    Raises:
        Disagreement: An encoder computes something else.
    """
    checkpoint_folder(size)
    with ExitStack() as stack:
        workers = _start(stack, specs, size, findings)
        _check_agreement(workers, findings, size=size, **labels)
        _measure_mix(workers, bench, effort, findings, size=size, **labels)
        _measure_shapes(workers, bench, effort, findings, size=size, **labels)


def _start(stack: ExitStack, specs: Sequence[EncoderSpec], size: str, findings: Findings) -> dict[str, Worker[Encoder]]:
    workers = {}
    for spec in specs:
        try:
            workers[spec.name] = stack.enter_context(start_encoder(spec, size))
        except Unavailable as error:
            findings.skip(f"{spec.name}, {size}", error)
    return workers


def _check_agreement(workers: Mapping[str, Worker[Encoder]], findings: Findings, **labels: str) -> None:
    """All compute in bfloat16, and differ by what that leaves."""
    answers = {name: worker.ask(Encode(probe(), DEFAULT_OUTPUTS)) for name, worker in workers.items()}
    for name, answer in answers.items():
        agreement = compare(answer, next(iter(answers.values())))
        findings.add("least_cosine", [agreement.cosine], encoder=name, **labels)
        require_agreement(name, DTYPE, agreement)


def measure_peak(bench: Bench, effort: Effort, findings: Findings) -> None:
    """Measures the device's rate of large matrix products, on torch."""
    with start_products("torch", bench.torch_device) as products:
        for shape in bench.products:
            samples = [products.ask(Multiply(DTYPE, shape)) for _ in range(effort.rounds)]
            findings.add("product_gflop_per_s", samples, dtype=DTYPE, product="x".join(map(str, shape)))


def _measure_shapes(
    workers: Mapping[str, Worker[Encoder]], bench: Bench, effort: Effort, findings: Findings, **labels: str
) -> None:
    cases: dict[str, Callable[[], float]] = {}
    for rows in bench.rows:
        for length in bench.lengths:
            question = Time([encodings([length] * rows)], OUTPUTS, least_s=effort.shape_s)
            cases |= {f"{name}|{rows}x{length}": partial(worker.ask, question) for name, worker in workers.items()}
    for case, seconds in interleave(cases, effort.rounds).items():
        name, shape = case.split("|")
        rows, length = map(int, shape.split("x"))
        flops = forward_flops(config_of(labels["size"]), rows, length)
        of_case = {"encoder": name, "shape": shape, **labels}
        findings.add("tokens_per_s", [rows * length / s for s in seconds], **of_case)
        findings.add("gflop_per_s", [flops / s / 1e9 for s in seconds], **of_case)


def _measure_mix(
    workers: Mapping[str, Worker[Encoder]], bench: Bench, effort: Effort, findings: Findings, **labels: str
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
        findings.add("tokens_per_s", [real_tokens(windows) / s for s in seconds], encoder=name, order=order, **labels)
