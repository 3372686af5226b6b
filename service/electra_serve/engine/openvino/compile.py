"""A graph, compiled for the CPU of this machine."""

from __future__ import annotations

from typing import Final

import openvino as ov

from electra_serve.errors import EngineUnavailable

PRECISIONS: Final = {"float32": "f32", "bfloat16": "bf16"}
"""Our dtypes: OpenVINO's precision hints."""

ACTIVATION_GROUP: Final = 64
"""Neighboring activations that share one scale in int8 products. Groups of 256 take 2 to 3 % less time and are twice
as far from float32; see docs/performance.md."""


def compile_graph(graph: ov.Model, *, dtype: str, threads: int, engines: int) -> ov.CompiledModel:
    """Compiles `graph`, once for so many engines: they share its weights.

    Args:
        graph: From `draw_graph` or an artifact.
        dtype: `float32`, `bfloat16`, or `int8` for a graph with such weights. On a CPU without bfloat16 arithmetic its
            products are int8, with activations quantized at run time. With it, they are bfloat16, which is faster.
        threads: Of each engine.
        engines: How many will run at a time.

    Raises:
        EngineUnavailable: This CPU does not compute in `dtype`.
    """
    if dtype not in {*PRECISIONS, "int8"}:
        raise EngineUnavailable(f"dtype must be float32, bfloat16 or int8 for the openvino engine; received {dtype}")
    if not computes_in(dtype):
        raise EngineUnavailable(
            "dtype must be float32 or int8 for the openvino engine on this CPU: it has no bfloat16 arithmetic "
            f"(AVX512-BF16 or AMX), and emulating it is many times slower; received {dtype}"
        )
    if dtype == "int8":
        dtype = "bfloat16" if computes_in("bfloat16") else "float32"
    return ov.Core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": str(engines),
            "INFERENCE_NUM_THREADS": str(threads * engines),
            # Pinned threads could not move out of the way of the servers' thread, which is pinned to nothing.
            "ENABLE_CPU_PINNING": "NO",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(ACTIVATION_GROUP),
        },
    )


def computes_in(dtype: str) -> bool:
    """Whether this CPU has the arithmetic for `dtype`: all have that for float32 and int8."""
    return dtype != "bfloat16" or "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
