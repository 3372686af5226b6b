"""Runs an encoder on Keras' JAX backend, compiled by XLA before the first request.

Both programs (`electra_serve.engine.keras.programs`) are compiled ahead of time for every shape, so a run cannot trace
or compile. Weights are arguments on the device; as constants, each program would hold a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, Final

import jax
import keras
import numpy as np

from electra_serve.engine.base import EngineSignature
from electra_serve.engine.input_checks import InputBounds
from electra_serve.engine.keras.jax.attention import verified
from electra_serve.engine.keras.programs import (
    STACKED,
    program_of,
    programs_of,
    run_program,
    stack_inputs,
    to_model_output,
)
from electra_serve.engine.threads import usable_cores
from electra_serve.model.attention import Attend
from electra_serve.model.loading import LoadedEncoder
from electra_serve.tensors import Batch, BatchShape, ModelOutput, Outputs

# By dtype, if it differs from the default: NVIDIA GPUs would round factors of float32 products to TF32's 10 bits.
MATMUL_PRECISION: Final = {"float32": "highest"}
NO_MEMORY: Final = "RESOURCE_EXHAUSTED"  # prefix of XLA's status; JAX has one error type for all of them

Program = Callable[[Sequence[Any], Any, Any], Mapping[str, Any]]


class JaxEngine:
    """Runs an encoder as XLA programs on one device, with `weights` there and `fused` attention if it is correct."""

    def __init__(
        self,
        encoder: LoadedEncoder,
        weights: Sequence[Any],
        *,
        device: Any,
        name: str,
        shapes: tuple[BatchShape, ...],
        fused: Attend | None = None,
    ) -> None:
        config = encoder.backbone.config
        self._signature = EngineSignature(
            engine="jax",
            device=name,
            dtype=encoder.backbone.dtype_policy.compute_dtype,
            hidden_dim=config.hidden_dim,
            shapes=shapes,
            outputs=encoder.outputs,
        )
        self._encoder = encoder
        self._device = device
        self._bounds = InputBounds.of(config, shapes)
        self._weights = weights
        self._attend = fused
        self._programs: dict[tuple[Outputs, BatchShape], Program] = {}
        self._compilations = 0
        self._compilations_when_warm = 0

    @property
    def signature(self) -> EngineSignature:
        """See `Engine.signature`."""
        return self._signature

    @property
    def compilations(self) -> int:
        """See `Engine.compilations`."""
        return self._compilations - self._compilations_when_warm

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        config, shapes = self._encoder.backbone.config, self._signature.shapes
        if self._attend is not None:
            heads = (config.num_heads, config.hidden_dim // config.num_heads)
            self._attend = verified(self._attend, self._device, self._signature.dtype, heads, shapes)
        with ThreadPoolExecutor(usable_cores()) as pool:  # XLA compiles without Python's lock
            compiling = {
                (outputs, shape): pool.submit(self._lower(outputs, shape).compile)
                for outputs, shape in product(programs_of(self._signature.outputs), shapes)
            }
        self._programs = {key: compiled.result() for key, compiled in compiling.items()}
        self._compilations_when_warm = self._compilations

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `Engine.run`."""
        self._bounds.check(batch)
        program = self._programs.get((program_of(outputs, self._signature.outputs), batch.shape))
        if program is None:
            raise RuntimeError("the engine must be warmed up first, and is not run after it is closed")
        try:
            computed = program(self._weights, *jax.device_put(stack_inputs(batch), self._device))
            # All copies are started before the first is waited for.
            wanted = jax.device_get({output.value: computed[output.value] for output in outputs})
        except jax.errors.JaxRuntimeError as error:
            if str(error).startswith(NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise
        return to_model_output(wanted, outputs)

    def close(self) -> None:
        """See `Engine.close`."""
        self._programs.clear()
        self._weights = []

    def _lower(self, outputs: Outputs, shape: BatchShape) -> Any:
        self._compilations += 1
        sharding = jax.sharding.SingleDeviceSharding(self._device)
        sizes = ((STACKED, shape.rows, shape.length), (shape.rows, shape.slots))
        inputs = (jax.ShapeDtypeStruct(size, np.int32, sharding=sharding) for size in sizes)
        with jax.default_matmul_precision(MATMUL_PRECISION.get(self._signature.dtype)):
            return jax.jit(self._program(outputs)).lower(self._weights, *inputs)

    def _program(self, outputs: Outputs) -> Program:
        def program(weights: Sequence[Any], stacked: Any, starts: Any) -> Mapping[str, Any]:
            with keras.StatelessScope(state_mapping=list(zip(self._encoder.weights, weights, strict=True))):
                return run_program(self._encoder, stacked, starts, outputs, self._attend)

        return program
