"""KerasHub's weight paths and transformers' tensor names, side by side: one table, read in both directions.

    KerasHub        layers/transformer_encoder_3/_self_attention_layer/query_dense/vars/0     (D, heads, D / heads)
    transformers    encoder.layer.3.attention.self.query.weight                               (D, D)

A dense kernel is (inputs, outputs) in Keras and (outputs, inputs) in PyTorch. Attention kernels have an axis for heads
in Keras. Only the names of others differ. `electra_serve.presets.weight_files.safetensors` reads by this table,
and `electra_serve.model.saving` writes by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import HeadConfig

# Prefixes of the encoder's names in checkpoints with a head, one for each architecture
PREFIXES: Final = ("electra.", "bert.")

# Prefixes of heads, which a checkpoint may have under any encoder
HEADS: Final = (
    "discriminator_predictions.",  # ElectraForPreTraining
    "generator_predictions.",  # ElectraForMaskedLM, ElectraForCausalLM
    "generator_lm_head.",  # likewise
    "cls.predictions.",  # BertForMaskedLM, BertForPreTraining
    "cls.seq_relationship.",  # BertForNextSentencePrediction, BertForPreTraining
    "classifier.",  # …ForSequenceClassification, …TokenClassification, …MultipleChoice
    "sequence_summary.",  # ElectraForMultipleChoice
    "qa_outputs.",  # …ForQuestionAnswering
)

ENCODER_PARTS: Final = (*PREFIXES, "embeddings", "encoder.", "pooler.")  # beginnings of names that are the encoder's

# transformers' names of a head's dense and last layer, by architecture and kind; "" if it has no such layer
HEAD_LAYERS: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("electra", "sequence_classification"): ("classifier.dense", "classifier.out_proj"),
    ("electra", "token_classification"): ("", "classifier"),
    ("electra", "question_answering"): ("", "qa_outputs"),
    ("electra", "replaced_token_detection"): (
        "discriminator_predictions.dense",
        "discriminator_predictions.dense_prediction",
    ),
    ("bert", "sequence_classification"): ("", "classifier"),
    ("bert", "token_classification"): ("", "classifier"),
    ("bert", "question_answering"): ("", "qa_outputs"),
}

# Constants that older versions of transformers saved among the weights
BUFFERS: Final = ("embeddings.position_ids", "embeddings.token_type_ids")

# TensorFlow's names, in checkpoints converted long ago
OLD_ENDINGS: Final = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}


@dataclass(frozen=True, slots=True)
class Counterpart:
    """Tensor of transformers for one of KerasHub's weights."""

    name: str  # the tensor's name, without a prefix of `PREFIXES`
    shape: tuple[int, ...]  # the tensor's shape
    transposed: bool = False  # whether it is the kernel of a dense layer

    def to_keras(self, tensor: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The weight, of Keras' `shape`, that holds the same numbers as `tensor`, of this one's shape."""
        return (tensor.T if self.transposed else tensor).reshape(shape)

    def to_transformers(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The tensor of this one's shape that holds the same numbers as `weight`, of Keras' shape."""
        return weight.reshape(self.shape[::-1]).T if self.transposed else weight.reshape(self.shape)


class _Part(NamedTuple):
    """A layer with weights under both names; its sizes are fields of `BackboneConfig`."""

    keras: str
    transformers: str
    outputs: str
    inputs: str | None = None  # None for a norm, whose two weights are vectors


_EMBEDDINGS: Final = (
    _Part("reversible_embedding", "embeddings.word_embeddings", "embedding_dim", "vocab_size"),
    _Part("position_embedding", "embeddings.position_embeddings", "embedding_dim", "max_sequence_length"),
    _Part("embedding", "embeddings.token_type_embeddings", "embedding_dim", "num_segments"),
)
_EMBEDDINGS_NORM: Final = _Part("layer_normalization", "embeddings.LayerNorm", "embedding_dim")
_ENCODER_LAYER: Final = (
    _Part("_self_attention_layer/query_dense", "attention.self.query", "hidden_dim", "hidden_dim"),
    _Part("_self_attention_layer/key_dense", "attention.self.key", "hidden_dim", "hidden_dim"),
    _Part("_self_attention_layer/value_dense", "attention.self.value", "hidden_dim", "hidden_dim"),
    _Part("_self_attention_layer/output_dense", "attention.output.dense", "hidden_dim", "hidden_dim"),
    _Part("_self_attention_layer_norm", "attention.output.LayerNorm", "hidden_dim"),
    _Part("_feedforward_intermediate_dense", "intermediate.dense", "intermediate_dim", "hidden_dim"),
    _Part("_feedforward_output_dense", "output.dense", "hidden_dim", "intermediate_dim"),
    _Part("_feedforward_layer_norm", "output.LayerNorm", "hidden_dim"),
)


def counterparts(config: BackboneConfig) -> dict[str, Counterpart]:
    """Transformers' tensor for every weight of an encoder, by KerasHub's path.

    Example:
        >>> table = counterparts(BackboneConfig(100, 2, 4, hidden_dim=16, embedding_dim=8, intermediate_dim=32))
        >>> table["layers/transformer_encoder_1/_feedforward_output_dense/vars/0"]
        Counterpart(name='encoder.layer.1.output.dense.weight', shape=(16, 32), transposed=True)
    """
    table = {
        f"layers/{part.keras}/vars/0": Counterpart(
            f"{part.transformers}.weight", (getattr(config, str(part.inputs)), config.embedding_dim)
        )
        for part in _EMBEDDINGS
    }
    for part in _layers(config):
        table.update(_weight_and_bias(part, config))
    return table


def head_counterparts(head: HeadConfig, config: BackboneConfig) -> dict[str, Counterpart]:
    """Transformers' tensor for every weight of a head, by its path in `head.weights.h5`.

    Example:
        >>> head = HeadConfig("question_answering", ("start", "end"), "softmax")
        >>> [tensor.name for tensor in head_counterparts(head, BackboneConfig(100, 2, 4, 16, 8, 32)).values()]
        ['qa_outputs.weight', 'qa_outputs.bias']
    """
    dense, output = HEAD_LAYERS[head.architecture, head.kind]
    width = config.hidden_dim
    table = {}
    for layer, name, outputs in (("dense", dense, width), ("output", output, len(head.labels))):
        if name:
            table[f"head/{layer}/vars/0"] = Counterpart(f"{name}.weight", (outputs, width), transposed=True)
            table[f"head/{layer}/vars/1"] = Counterpart(f"{name}.bias", (outputs,))
    return table


def pooler_paths(config: BackboneConfig) -> tuple[str, str]:
    """KerasHub's paths of the pooler's kernel and bias. Keras numbers dense layers: the projection comes first."""
    group = "dense" if config.embedding_dim == config.hidden_dim else "dense_1"
    return f"layers/{group}/vars/0", f"layers/{group}/vars/1"


def encoder_prefix(names: Iterable[str]) -> str:
    """Returns the prefix of the encoder's names, one of `PREFIXES` or ""."""
    names = list(names)
    return next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in names)), "")


def is_head(name: str, prefix: str) -> bool:
    """Returns True for a head's tensor: next to names with a prefix, all that are not the encoder's."""
    return name.startswith(HEADS) or bool(prefix and not name.startswith(ENCODER_PARTS))


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """A checkpoint's own name of each encoder tensor, by the name that `counterparts` knows it by.

    Raises:
        PresetError: A name is neither the encoder's nor a head's, or two mean the same tensor.

    Example:
        >>> canonical_names(["electra.embeddings.LayerNorm.gamma", "discriminator_predictions.dense.weight"])
        {'embeddings.LayerNorm.weight': 'electra.embeddings.LayerNorm.gamma'}
    """
    names = list(names)
    prefix = encoder_prefix(names)
    found: dict[str, str] = {}
    for name in names:
        if is_head(name, prefix) or name.removeprefix(prefix) in BUFFERS:
            continue
        canonical = _modern(name.removeprefix(prefix))
        if not name.startswith(prefix) or canonical in found:
            raise PresetError(f"a checkpoint must name each tensor once, all in one style; it has {name!r:.80}")
        found[canonical] = name
    return found


def _layers(config: BackboneConfig) -> Iterator[_Part]:
    yield _EMBEDDINGS_NORM
    if config.embedding_dim != config.hidden_dim:
        yield _Part("dense", "embeddings_project", "hidden_dim", "embedding_dim")
    yield _Part(pooler_paths(config)[0].split("/")[1], "pooler.dense", "hidden_dim", "hidden_dim")
    for i in range(config.num_layers):
        group = f"transformer_encoder_{i}" if i else "transformer_encoder"
        for part in _ENCODER_LAYER:
            yield part._replace(keras=f"{group}/{part.keras}", transformers=f"encoder.layer.{i}.{part.transformers}")


def _weight_and_bias(part: _Part, config: BackboneConfig) -> Iterator[tuple[str, Counterpart]]:
    outputs = getattr(config, part.outputs)
    shape = (outputs,) if part.inputs is None else (outputs, getattr(config, part.inputs))
    transposed = part.inputs is not None
    yield f"layers/{part.keras}/vars/0", Counterpart(f"{part.transformers}.weight", shape, transposed=transposed)
    yield f"layers/{part.keras}/vars/1", Counterpart(f"{part.transformers}.bias", (outputs,))


def _modern(name: str) -> str:
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
