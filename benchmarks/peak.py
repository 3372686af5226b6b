"""The machine's matrix peak: the rate of its best library on large products, by dtype.

Rates of encoders are reported as a fraction of it. It is the best of two libraries and some shapes, measured in
the same rounds as the encoders. Products are chained, so that conversions of input and output count for little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.machine import cores
from benchmarks.worker import Worker

SHAPES: Final = ((1024, 1024, 4096), (2048, 2048, 2048), (4096, 1024, 4096))
"""(M, K, N) of (M, K) · (K, N) · (N, K)."""
CHAIN: Final = 4
"""Products in a chain."""
SCALE: Final = 0.03
"""Scale of the random matrices, which keeps a chain's numbers in range and far from denormal."""
LEAST_S: Final = 0.2
OPENVINO_HINTS: Final[Mapping[str, str]] = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
"""Precision hint by dtype; int8 is in the graph, and its hint is for the operations between."""

Run = Callable[[], object]


@dataclass(slots=True)
class Products:
    """The chains of one library, built at their first use.

    Attributes:
        make: Builds the chain of a dtype and a shape.
    """

    make: Callable[[str, tuple[int, int, int]], Run]
    built: dict[tuple[str, tuple[int, int, int]], Run] = field(default_factory=dict)

    def chain(self, dtype: str, shape: tuple[int, int, int]) -> Run:
        """Returns the function that runs a chain."""
        if (dtype, shape) not in self.built:
            self.built[dtype, shape] = self.make(dtype, shape)
            self.built[dtype, shape]()
        return self.built[dtype, shape]


@dataclass(frozen=True, slots=True)
class Multiply:
    """Asks for GFLOP/s: the best run of a chain within `LEAST_S`."""

    dtype: str
    shape: tuple[int, int, int]

    def answer(self, products: Products, /) -> float:
        """Returns GFLOP/s."""
        run = products.chain(self.dtype, self.shape)
        run()
        seconds: list[float] = []
        while sum(seconds) < LEAST_S:
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        m, k, n = self.shape
        return CHAIN * 2 * m * k * n / min(seconds) / 1e9


def start_products(library: str, device: str = "cpu") -> Worker[Products]:
    """Starts the products of `openvino` or `torch` in a process of their own.

    Args:
        library: The library.
        device: `cpu`, or torch's `cuda`.

    Raises:
        Unavailable: It is not installed.
    """
    return Worker(f"products-{library}", partial(_build, library, device))


def _build(library: str, device: str) -> Products:
    return Products(_openvino_chain if library == "openvino" else partial(_torch_chain, device=device))


def _matrix(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return generator.standard_normal((rows, columns), np.float32) * np.float32(SCALE)


def _openvino_chain(dtype: str, shape: tuple[int, int, int]) -> Run:
    import openvino as ov
    from openvino import opset13 as op

    m, k, n = shape
    generator = np.random.default_rng(0)
    parameter = op.parameter([m, k], ov.Type.f32)
    found = parameter
    weights = [_openvino_weight(op, _matrix(generator, *sides), dtype) for sides in ((k, n), (n, k))]
    for number in range(CHAIN):
        if dtype == "int8":
            found = _quantized(op, found)
        found = op.matmul(found, weights[number % 2], False, False)  # noqa: FBT003  # transposes neither
    total = op.reduce_sum(found, op.constant(np.array([1], np.int64)), False)  # noqa: FBT003  # keeps no axis
    settings = {
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[dtype],
        "INFERENCE_NUM_THREADS": cores(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = ov.Core().compile_model(ov.Model([total], [parameter]), "CPU", settings).create_infer_request()
    given = [_matrix(generator, m, k)]
    return lambda: request.infer(given, share_inputs=True, share_outputs=True)


def _openvino_weight(op: Any, matrix: np.ndarray[Any, np.dtype[np.float32]], dtype: str) -> Any:
    if dtype != "int8":
        return op.constant(matrix)
    scale = np.float32(np.abs(matrix).max() / 127)
    return op.multiply(op.convert(op.constant((matrix / scale).round().astype(np.int8)), "f32"), op.constant(scale))


def _quantized(op: Any, tensor: Any) -> Any:
    """Marks an activation as int8, as NNCF does."""
    low, high = (op.constant(np.array([[bound]], np.float32)) for bound in (-0.128, 0.127))
    return op.fake_quantize(tensor, low, high, low, high, 256)


def _torch_chain(dtype: str, shape: tuple[int, int, int], *, device: str) -> Run:
    import torch

    if dtype == "int8":
        raise NotImplementedError("int8 products are measured with openvino only")
    torch.set_num_threads(cores())
    m, k, n = shape
    generator = np.random.default_rng(0)
    kind = getattr(torch, dtype)
    given, first, second = (
        torch.from_numpy(_matrix(generator, *sides)).to(device, kind) for sides in ((m, k), (k, n), (n, k))
    )

    def run() -> object:
        found = given
        with torch.inference_mode():
            for number in range(CHAIN):
                found = found @ (first, second)[number % 2]
        return float(found[0, 0])  # waits for the device

    return run
