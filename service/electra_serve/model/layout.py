"""Where each weight lives in a preset's h5 files: KerasHub's names, as Keras derives them from its classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from electra_serve.model.backbone import ElectraBackbone

ENCODER_PARTS: Final = (
    "_self_attention_layer.query_dense",
    "_self_attention_layer.key_dense",
    "_self_attention_layer.value_dense",
    "_self_attention_layer.output_dense",
    "_self_attention_layer_norm",
    "_feedforward_intermediate_dense",
    "_feedforward_output_dense",
    "_feedforward_layer_norm",
)
"""The parts of a transformer layer that have weights, by the attributes that lead to them."""


def weight_layout(backbone: ElectraBackbone) -> dict[str, Any]:
    """Every variable of `backbone` by its dataset's path, such as `layers/transformer_encoder/…/vars/0`."""
    return {
        f"layers/{group}/vars/{index}": variable
        for group, layer in _groups(backbone)
        for index, variable in enumerate(layer.weights)
    }


def _groups(backbone: ElectraBackbone) -> Iterator[tuple[str, Any]]:
    yield "reversible_embedding", backbone.token_embedding
    yield "position_embedding", backbone.position_embedding
    yield "embedding", backbone.segment_embedding
    yield "layer_normalization", backbone.embeddings_layer_norm
    denses = (backbone.embeddings_projection, backbone.pooled_dense)
    yield from _numbered("dense", [layer for layer in denses if layer is not None])
    for group, layer in _numbered("transformer_encoder", backbone.transformer_layers):
        for part in ENCODER_PARTS:
            yield f"{group}/{part.replace('.', '/')}", _attribute(layer, part)


def _numbered(name: str, layers: list[Any]) -> Iterator[tuple[str, Any]]:
    """Keras numbers layers of one class from the second on: `dense`, `dense_1`, …."""
    return ((f"{name}_{i}" if i else name, layer) for i, layer in enumerate(layers))


def _attribute(layer: Any, path: str) -> Any:
    for name in path.split("."):
        layer = getattr(layer, name)
    return layer
