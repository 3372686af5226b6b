"""The services that are measured: ours, by engine and dtype, and the contenders."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from benchmarks.fleet import ServiceSpec
from benchmarks.weights import artifact_folder, served_folder

SIZE: Final = "small"
"""Services are compared on one architecture: on a larger one the service itself matters less."""
LITSERVE: Final = "KerasHub + LitServe"
ONNX_BATCHING: Final = "onnxruntime, dynamic batching"
ONNX_ROWS: Final = "onnxruntime, row by row"
ARTIFACT: Final = "openvino artifact"
REPLICAS: Final = "openvino, a replica per core"
JAX_IS_SLOW_TO_START: Final = "compiles its grid of shapes for minutes at each start on a CPU; it is for GPUs"
CONTENDERS: Final = {
    LITSERVE: "benchmarks.contenders.litserve_service",
    ONNX_BATCHING: "benchmarks.contenders.onnx_batching",
    ONNX_ROWS: "benchmarks.contenders.onnx_rows",
}
MODULE: Final = "electra_serve"
PADDING_MODULE: Final = "benchmarks.padding_service"
PADDED_TOKENS: Final = 32 * 512
"""A full batch with one row of the longest: engines refuse more than they are told to expect."""


def our_service(engine: str, dtype: str, *, module: str = MODULE, name: str = "") -> ServiceSpec:
    """This service on one engine.

    Args:
        engine: As in the settings.
        dtype: As in the settings.
        module: What is run; `PADDING_MODULE` for the one that pads.
        name: As it is reported; default: engine and dtype.
    """
    model = {"preset": str(served_folder(SIZE, dtype)), "name": "electra", "engine": engine, "dtype": dtype}
    return _our_service(model, name or f"{engine}/{dtype}", module)


def replicas_service(dtype: str) -> ServiceSpec:
    """This service on as many openvino engines as there are cores, each on a thread of its own."""
    cores = len(os.sched_getaffinity(0))
    model = {"preset": str(served_folder(SIZE, dtype)), "name": "electra", "engine": "openvino", "dtype": dtype}
    return _our_service({**model, "replicas": cores, "threads": 1}, f"{REPLICAS}/{dtype}", MODULE)


def artifact_service(dtype: str) -> ServiceSpec:
    """This service on what `electra-serve compile` made."""
    model = {"preset": str(artifact_folder(SIZE, dtype)), "name": "electra"}
    return _our_service(model, f"{ARTIFACT}/{dtype}", MODULE)


def contender(name: str) -> ServiceSpec:
    """One of `CONTENDERS`."""
    return ServiceSpec(name, lambda rest_port, _: ("-m", CONTENDERS[name], "--port", str(rest_port)))


def _our_service(model: Mapping[str, object], name: str, module: str) -> ServiceSpec:
    before = ["-m", module, "serve", "--models", json.dumps(model), "--log.format=json"]
    if module == PADDING_MODULE:
        before.append(f"--batching.max_batch_tokens={PADDED_TOKENS}")
    return ServiceSpec(name, partial(_our_command, before), grpc=True, metrics=True)


def _our_command(before: Sequence[str], rest_port: int, grpc_port: int) -> Sequence[str]:
    return (*before, f"--rest.port={rest_port}", f"--grpc.port={grpc_port}")
