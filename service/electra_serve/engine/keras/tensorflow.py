"""The TensorFlow engine for CPUs and GPUs, as graphs for all shapes or compiled by XLA for each.

Both programs (`electra_serve.engine.keras.programs`) are traced once, with dynamic shapes. With `xla`, they are
compiled for every shape during warm-up. Defaults are in `COMPILERS`, reasons in docs/decisions/0003.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

import tensorflow as tf

from electra_serve.engine.base import EngineSet, EngineSignature
from electra_serve.engine.input_checks import InputBounds
from electra_serve.engine.keras.backend import require_dtype
from electra_serve.engine.keras.placement import choose_devices
from electra_serve.engine.keras.programs import (
    STACKED,
    program_of,
    programs_of,
    run_program,
    stack_inputs,
    to_model_output,
)
from electra_serve.engine.profiling import full_batch
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes, gpu_shapes
from electra_serve.engine.threads import engine_threads, usable_cores
from electra_serve.errors import EngineUnavailable
from electra_serve.model.loading import LoadedEncoder, load_encoder
from electra_serve.presets.folder import PresetFolder
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Batch, BatchShape, ModelOutput, Outputs

Compiler = Literal["graph", "xla"]
Program = Callable[[Any, Any], Mapping[str, tf.Tensor]]

# `auto`, by kind of device and dtype
COMPILERS: Final[Mapping[tuple[str, str], Compiler]] = {
    ("cpu", "float32"): "graph",  # XLA takes 0.85 of the time on natural text, and minutes to compile for it
    ("cpu", "bfloat16"): "graph",  # XLA takes up to 1.5 times as long
    ("cpu", "float16"): "graph",
    ("gpu", "float32"): "xla",
    ("gpu", "bfloat16"): "xla",
    ("gpu", "float16"): "xla",
}
_INPUTS: Final = (tf.TensorSpec((STACKED, None, None), tf.int32), tf.TensorSpec((None, None), tf.int32))


class TensorFlowEngine:
    """Runs an encoder, built on the TensorFlow backend on `device`, as TensorFlow graphs."""

    def __init__(
        self, encoder: LoadedEncoder, *, device: str, shapes: tuple[BatchShape, ...], compiler: Compiler
    ) -> None:
        self._signature = EngineSignature(
            engine="tensorflow",
            device=device,
            dtype=encoder.backbone.dtype_policy.compute_dtype,
            hidden_dim=encoder.backbone.config.hidden_dim,
            shapes=shapes,
            outputs=encoder.outputs,
        )
        self._encoder = encoder
        self._bounds = InputBounds.of(encoder.backbone.config, shapes)
        self._compiler = compiler
        self._traces = 0
        self._compiled: set[tuple[Outputs, BatchShape]] = set()  # by XLA, at the first run of a shape
        self._compilations_when_warm = 0
        self._programs: dict[Outputs, Program] = {}

    @property
    def signature(self) -> EngineSignature:
        """See `Engine.signature`."""
        return self._signature

    @property
    def compilations(self) -> int:
        """See `Engine.compilations`."""
        return self._traces + len(self._compiled) - self._compilations_when_warm

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        with tf.device(_tf_device(self._signature.device)):
            self._programs = {outputs: self._trace(outputs) for outputs in programs_of(self._signature.outputs)}
        shapes = self._signature.shapes
        first_runs = shapes if self._compiler == "xla" else (min(shapes, key=lambda shape: shape.positions),)
        with ThreadPoolExecutor(usable_cores()) as pool:  # XLA compiles several programs at a time
            list(pool.map(self._run_all, first_runs))
        self._compilations_when_warm = self._traces + len(self._compiled)

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `Engine.run`."""
        self._bounds.check(batch)
        program = program_of(outputs, self._signature.outputs)
        if program not in self._programs:
            raise RuntimeError("cannot run: the engine is not warm, or is closed")
        if self._compiler == "xla":
            self._compiled.add((program, batch.shape))
        try:
            with tf.device(_tf_device(self._signature.device)):
                computed = self._programs[program](*stack_inputs(batch))
            return to_model_output(computed, outputs)
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(str(error)) from error

    def close(self) -> None:
        """See `Engine.close`."""
        self._programs.clear()

    def _trace(self, outputs: Outputs) -> Program:
        @tf.function(input_signature=_INPUTS, autograph=False, jit_compile=self._compiler == "xla" or None)
        def program(stacked: Any, starts: Any) -> Mapping[str, tf.Tensor]:
            self._traces += 1
            return run_program(self._encoder, stacked, starts, outputs)

        traced: Program = program.get_concrete_function()
        return traced

    def _run_all(self, shape: BatchShape) -> None:
        for outputs in programs_of(self._signature.outputs):
            self.run(full_batch(shape), outputs)


def build_engines(preset: PresetFolder, settings: ModelSettings, limits: ShapeLimits) -> EngineSet:
    """Builds the replicas of one model, by default one; replicas on one device share its weights."""
    require_dtype(settings.dtype, "tensorflow")
    _share_cores(settings.threads)
    devices = choose_devices(settings.device, settings.replicas or 1, _count_gpus(), backend="TensorFlow")
    encoders = {device: _load(preset, settings, device) for device in dict.fromkeys(devices)}
    compiler = choose_compiler(settings.compiler, devices[0], settings.dtype)
    shapes = cpu_shapes(limits) if devices[0] == "cpu" else gpu_shapes(limits)
    return EngineSet(
        tuple(TensorFlowEngine(encoders[device], device=device, shapes=shapes, compiler=compiler) for device in devices)
    )


def _share_cores(threads: int) -> None:
    try:  # all TensorFlow engines share one pool; the first model's setting counts
        tf.config.threading.set_intra_op_parallelism_threads(engine_threads(threads, 1, usable_cores()))
    except RuntimeError as error:  # the pool exists
        size = tf.config.threading.get_intra_op_parallelism_threads()
        if threads not in {0, size}:
            raise EngineUnavailable(
                f"threads must be 0 or {size}: the models of the tensorflow engine share one pool; got {threads}"
            ) from error


def choose_compiler(asked: Literal["auto", "graph", "xla"], device: str, dtype: str) -> Compiler:
    """Returns the compiler to use on `device`."""
    return COMPILERS[device.partition(":")[0], dtype] if asked == "auto" else asked


def _load(preset: PresetFolder, settings: ModelSettings, device: str) -> LoadedEncoder:
    with tf.device(_tf_device(device)):
        return load_encoder(preset, dtype=settings.dtype, load_weights=settings.load_weights)


def _count_gpus() -> int:
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Else the first process takes all of a GPU's memory.
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    tf.config.experimental.enable_tensor_float_32_execution(False)  # noqa: FBT003  # it has 10 bits of float32's 23
    return len(gpus)


def _tf_device(device: str) -> str:
    return f"/{device.upper()}" if ":" in device else f"/{device.upper()}:0"
