"""Descriptions of the server and its models: exactly the tensors that each model takes and computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from electra_serve.api.oip.decode import VERSION
from electra_serve.api.oip.outputs import OUTPUTS, TOKEN_COUNTS, outputs_of
from electra_serve.errors import ModelNotReady
from electra_serve.serving.model_info import ModelInfo, ModelState
from electra_serve.tensors import HEAD_OUTPUTS, POSITION_OUTPUTS

SERVER_NAME: Final = "electra-serve"
PLATFORM: Final = "electra"
EXTENSIONS: Final = ("binary_tensor_data", "parameters", "statistics", "model_configuration")
ANY: Final = -1  # size of an axis that requests choose
_ID_INPUTS: Final = ("token_ids", "segment_ids", "padding_mask")


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """Name, datatype and shape of a tensor, with the axis of the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions without the batch, of which a configuration has at least one."""
        return self.shape[1:] or (1,)

    @property
    def is_reshaped(self) -> bool:
        """True if `dims` has one more dimension than the tensor."""
        return len(self.shape) == 1


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Description of a ready model."""

    name: str
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[TensorMetadata]
    max_batch_size: int
    properties: Mapping[str, str]  # limits, as texts
    versions: Sequence[str] = (VERSION,)
    platform: str = PLATFORM


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A model of the repository."""

    name: str
    state: str  # READY or UNAVAILABLE
    reason: str  # state of a model that is not ready
    version: str = VERSION


def describe(info: ModelInfo) -> ModelMetadata:
    """Describes a model; raises `ModelNotReady` if it is not loaded."""
    if info.config is None or info.limits is None:
        raise ModelNotReady(f"model {info.name} is {info.state}; its tensors are known once it is ready", field="model")
    return ModelMetadata(
        name=info.name,
        inputs=_inputs(takes_text=bool(info.text)),
        outputs=[_output(name, info.config.hidden_dim, len(info.labels)) for name in outputs_of(info)],
        max_batch_size=info.limits.max_sequences,
        properties={
            "max_sequence_length": str(info.limits.max_sequence_length),
            "max_sequences": str(info.limits.max_sequences),
            "vocab_size": str(info.config.vocab_size),
        },
    )


def index_entry(info: ModelInfo) -> IndexEntry:
    """Returns the entry of a model in the repository's index."""
    if info.state is ModelState.READY:
        return IndexEntry(info.name, "READY", "")
    return IndexEntry(info.name, "UNAVAILABLE", info.state.value)


def _inputs(*, takes_text: bool) -> list[TensorMetadata]:
    ids = [TensorMetadata(name, "INT64", (ANY, ANY), optional=takes_text or name != "token_ids") for name in _ID_INPUTS]
    return [*ids, TensorMetadata("text", "BYTES", (ANY, 1), optional=True)] if takes_text else ids


def _output(name: str, hidden_dim: int, labels: int) -> TensorMetadata:
    if name == TOKEN_COUNTS:
        return TensorMetadata(name, "INT32", (ANY,))
    output = OUTPUTS[name]
    width = labels if output in HEAD_OUTPUTS else hidden_dim
    return TensorMetadata(name, "FP32", (ANY, ANY, width) if output in POSITION_OUTPUTS else (ANY, width))
