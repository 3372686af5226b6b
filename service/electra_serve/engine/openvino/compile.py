"""Compiles a graph for the CPU of this machine."""

from __future__ import annotations

from typing import Final

import openvino as ov

from electra_serve.errors import EngineUnavailable

PRECISIONS: Final = {"float32": "f32", "bfloat16": "bf16"}  # dtype → OpenVINO's precision hint

# Neighboring activations that share a scale in int8 products: groups of 256 take 2 to 3 % less time, but double the
# error (docs/performance.md).
ACTIVATION_GROUP: Final = 64


def compile_graph(graph: ov.Model, *, dtype: str, threads: int, engines: int) -> ov.CompiledModel:
    """Compiles `graph` once for `engines` engines of `threads` threads each, which share its weights.

    An int8 graph has int8 products, with activations quantized at run time, or bfloat16 ones if the CPU has those.
    """
    if dtype not in {*PRECISIONS, "int8"}:
        raise EngineUnavailable(f"dtype must be float32, bfloat16 or int8 for the openvino engine; got {dtype}")
    if not computes_in(dtype):
        raise EngineUnavailable(
            "dtype must be float32 or int8 for the openvino engine on this CPU: it has no bfloat16 arithmetic "
            f"(AVX512-BF16 or AMX), and emulation is many times slower; got {dtype}"
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
            # Pinned threads could not make way for the event loop's thread, which is not pinned.
            "ENABLE_CPU_PINNING": "NO",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(ACTIVATION_GROUP),
        },
    )


def computes_in(dtype: str) -> bool:
    """Returns True if this CPU has arithmetic for `dtype`; every CPU has it for float32 and int8."""
    return dtype != "bfloat16" or "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
