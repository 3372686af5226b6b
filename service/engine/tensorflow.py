"""The TensorFlow engine: traced once, for any batch shape, on CPU or GPU.

The encoder is traced into two graphs with dynamic (B, S): one that computes every position, one whose last
layer computes [CLS] alone. What makes outputs of its hidden states is a small graph for each set of outputs,
so all of them are there after warm-up, and nothing is traced because of what a caller asks for. Hidden states
go from one graph to the other where they are; only the outputs are copied to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations
from typing import Any, Final

import keras
import tensorflow as tf

from service.engine.base import Engine, EngineSignature, ShapeGrid
from service.engine.calibration import full_batch
from service.errors import EngineUnavailable
from service.model.backbone import ElectraBackbone
from service.model.loading import load_backbone
from service.model.outputs import encode, read_outputs
from service.presets.folder import PresetFolder
from service.settings import ModelSettings
from service.tensors import TOKEN_OUTPUTS, Batch, BatchShape, ModelOutput, Output, Outputs

RANDOM_SEED: Final = 0
"""Which random weights a model without pretrained ones gets: the same at every start."""
_IDS: Final = tf.TensorSpec((None, None), tf.int32)


class TensorFlowEngine:
    """Runs a backbone as TensorFlow graphs.

    Args:
        backbone: Built on the TensorFlow backend, on `device`.
        device: `cpu`, or `gpu:N`.
        grid: The batches to expect; any shape within runs without tracing anew.
    """

    def __init__(self, backbone: ElectraBackbone, *, device: str, grid: ShapeGrid) -> None:
        self._signature = EngineSignature(
            engine="tensorflow",
            device=device,
            dtype=backbone.dtype_policy.compute_dtype,
            hidden_dim=backbone.config.hidden_dim,
            grid=grid,
        )
        self._backbone = backbone
        self._traces = 0
        self._traces_when_warm = 0
        self._encoders: dict[bool, Callable[..., tf.Tensor]] = {}  # by whether [CLS] alone is wanted
        self._readers: dict[Outputs, Callable[..., dict[str, tf.Tensor]]] = {}

    @property
    def signature(self) -> EngineSignature:
        """See `Engine.signature`."""
        return self._signature

    @property
    def compilations(self) -> int:
        """See `Engine.compilations`."""
        return self._traces - self._traces_when_warm

    def warm_up(self, shapes: Sequence[BatchShape]) -> None:
        """See `Engine.warm_up`."""
        with tf.device(_tf_device(self._signature.device)):
            self._encoders = {cls_only: self._trace_encoder(cls_only=cls_only) for cls_only in (False, True)}
            self._readers = {outputs: self._trace_reader(outputs) for outputs in _output_sets()}
        for outputs in self._readers:
            self.run(full_batch(BatchShape(1, 1)), outputs)
        for shape in shapes:
            self.run(full_batch(shape), frozenset({Output.SEQUENCE}))
            self.run(full_batch(shape), frozenset({Output.CLS}))
        self._traces_when_warm = self._traces

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `Engine.run`."""
        with tf.device(_tf_device(self._signature.device)):
            token_ids, segment_ids = tf.constant(batch.token_ids), tf.constant(batch.segment_ids)
            padding_mask = tf.constant(batch.padding_mask)
            hidden = self._encoders[not outputs & TOKEN_OUTPUTS](token_ids, segment_ids, padding_mask)
            computed = self._readers[outputs](hidden, padding_mask)
        return ModelOutput(**{name: tensor.numpy() for name, tensor in computed.items()})

    def close(self) -> None:
        """See `Engine.close`."""
        self._encoders.clear()
        self._readers.clear()

    def _trace_encoder(self, *, cls_only: bool) -> Callable[..., tf.Tensor]:
        @tf.function(input_signature=[_IDS] * 3, autograph=False)
        def encoder(token_ids: Any, segment_ids: Any, padding_mask: Any) -> tf.Tensor:
            self._traces += 1
            return encode(self._backbone, token_ids, segment_ids, padding_mask, cls_only=cls_only)

        traced: Callable[..., tf.Tensor] = encoder.get_concrete_function()
        return traced

    def _trace_reader(self, outputs: Outputs) -> Callable[..., dict[str, tf.Tensor]]:
        hidden_spec = tf.TensorSpec((None, None, self._signature.hidden_dim), self._signature.dtype)

        @tf.function(input_signature=[hidden_spec, _IDS], autograph=False)
        def reader(hidden: Any, padding_mask: Any) -> dict[str, tf.Tensor]:
            self._traces += 1
            read = read_outputs(self._backbone, hidden, padding_mask, outputs)
            return {output.value: tensor for output, tensor in read.items()}

        traced: Callable[..., dict[str, tf.Tensor]] = reader.get_concrete_function()
        return traced


def build_engines(preset: PresetFolder, settings: ModelSettings, grid: ShapeGrid) -> tuple[Engine, ...]:
    """Builds the replicas of one model; those on one device share its weights.

    Raises:
        EngineUnavailable: The device asked for is not here, or Keras already runs on another backend.
        PresetError: The weights cannot be read.
    """
    _require_keras_on_tensorflow()
    devices = choose_devices(settings.device, settings.replicas, _count_gpus())
    backbones = {device: _load(preset, settings, device) for device in dict.fromkeys(devices)}
    return tuple(TensorFlowEngine(backbones[device], device=device, grid=grid) for device in devices)


def choose_devices(device: str, replicas: int, gpus: int) -> list[str]:
    """The device of each replica.

    Args:
        device: `auto`, `cpu`, `gpu` or `gpu:N`.
        replicas: How many to place; on GPUs one after the other, from N on and round again.
        gpus: How many GPUs there are.

    Raises:
        EngineUnavailable: A GPU is asked for that is not there.

    Example:
        >>> choose_devices("auto", 2, gpus=0), choose_devices("gpu:1", 2, gpus=2)
        (['cpu', 'cpu'], ['gpu:1', 'gpu:0'])
    """
    if device == "cpu" or (device == "auto" and gpus == 0):
        return ["cpu"] * replicas
    first = int(device.partition(":")[2] or 0)
    if first >= gpus:
        raise EngineUnavailable(f"device must be cpu or one of {gpus} GPUs that TensorFlow sees; received {device}")
    return [f"gpu:{(first + replica) % gpus}" for replica in range(replicas)]


def _load(preset: PresetFolder, settings: ModelSettings, device: str) -> ElectraBackbone:
    with tf.device(_tf_device(device)):
        return load_backbone(preset, dtype=settings.dtype, load_weights=settings.load_weights, seed=RANDOM_SEED)


def _count_gpus() -> int:
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Otherwise TensorFlow takes all of a GPU's memory at once, and a second process none.
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    return len(gpus)


def _tf_device(device: str) -> str:
    return f"/{device.upper()}" if ":" in device else f"/{device.upper()}:0"


def _require_keras_on_tensorflow() -> None:
    if keras.backend.backend() != "tensorflow":
        raise EngineUnavailable(f"Keras must run on tensorflow for this engine; it runs on {keras.backend.backend()}")


def _output_sets() -> Iterator[Outputs]:
    """Every non-empty set of outputs: 15 of them."""
    sizes = range(1, len(Output) + 1)
    return (frozenset(chosen) for chosen in chain.from_iterable(combinations(Output, size) for size in sizes))
