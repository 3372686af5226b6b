"""Services that are measured: ours, by engine and dtype, and the contenders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from benchmarks.fleet import ServiceSpec
from benchmarks.weights import artifact_folder, preset_folder

SIZE: Final = "small"
"""Services are compared on one architecture: on a larger one the service itself matters less."""
LITSERVE: Final = "KerasHub + LitServe"
ONNX_BATCHING: Final = "onnxruntime, dynamic batching"
ONNX_ROWS: Final = "onnxruntime, row by row"
ARTIFACT: Final = "openvino artifact"
ONE_ENGINE: Final = "openvino, one engine"
JAX_IS_SLOW_TO_START: Final = "compiles each of its shapes at each start; it is for GPUs"
CONTENDERS: Final = {
    LITSERVE: "benchmarks.contenders.litserve_service",
    ONNX_BATCHING: "benchmarks.contenders.onnx_batching",
    ONNX_ROWS: "benchmarks.contenders.onnx_rows",
}
MODULE: Final = "electra_serve"
PADDING_MODULE: Final = "benchmarks.padding_service"


def our_service(engine: str, dtype: str, *, size: str = SIZE, module: str = MODULE, name: str = "") -> ServiceSpec:
    """Returns this service on one model, with default settings.

    Args:
        engine: As in the settings.
        dtype: As in the settings.
        size: Size of the model.
        module: Module that runs; `PADDING_MODULE` for the one that pads.
        name: Name in the report; default: engine and dtype, and the size if it is not `SIZE`.
    """
    model = {"preset": str(preset_folder(size)), "name": "electra", "engine": engine, "dtype": dtype}
    default = f"{engine}/{dtype}" if size == SIZE else f"{engine}/{dtype}, {size}"
    return _our_service(model, name or default, module, size=size, dtype=dtype)


def one_engine_service(dtype: str) -> ServiceSpec:
    """Returns this service on one openvino engine with all cores."""
    model = {"preset": str(preset_folder(SIZE)), "name": "electra", "engine": "openvino", "dtype": dtype}
    return _our_service({**model, "replicas": 1}, f"{ONE_ENGINE}/{dtype}", dtype=dtype)


def artifact_service(dtype: str) -> ServiceSpec:
    """Returns this service on an artifact of `electra-serve compile`."""
    model = {"preset": str(artifact_folder(SIZE, dtype)), "name": "electra"}
    return _our_service(model, f"{ARTIFACT}/{dtype}", dtype=dtype)


def contender(name: str) -> ServiceSpec:
    """Returns one of `CONTENDERS`."""
    return ServiceSpec(name, lambda rest_port, _: ("-m", CONTENDERS[name], "--port", str(rest_port)))


def _our_service(
    model: Mapping[str, object], name: str, module: str = MODULE, *, dtype: str, size: str = SIZE
) -> ServiceSpec:
    before = ["-m", module, "serve", "--models", json.dumps(model), "--log.format=json"]
    return ServiceSpec(name, partial(_our_command, before), grpc=True, metrics=True, size=size, dtype=dtype)


def _our_command(before: Sequence[str], rest_port: int, grpc_port: int) -> Sequence[str]:
    return (*before, f"--rest.port={rest_port}", f"--grpc.port={grpc_port}")
