"""A transformers checkpoint: its config and files, checked before anything is read from the weights.

    config.json                            architecture, with a `model_type` of `MODEL_TYPES`
    model.safetensors                      weights, or
    model.safetensors.index.json + shards  the same in shards
    tokenizer.json or vocab.txt            the tokenizer, with `TOKENIZER_SIDE_FILES`

A field that config.json leaves out has transformers' default (`ElectraConfig`, `BertConfig`). BERT is the same encoder
without a projection of its embeddings: their width is that of the layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.files import shards
from electra_serve.presets.heads import HeadArchitecture, HeadConfig
from electra_serve.presets.transformers_heads import ENCODERS, head_fields

MODEL_TYPE: Final[HeadArchitecture] = "electra"  # written by `convert` for encoders without a head
CHECKPOINT_FILE: Final = "model.safetensors"
CHECKPOINT_INDEX_FILE: Final = "model.safetensors.index.json"
VOCAB_FILE: Final = "vocab.txt"
TOKENIZER_CONFIG_FILE: Final = "tokenizer_config.json"
SPECIAL_TOKENS_FILE: Final = "special_tokens_map.json"
ADDED_TOKENS_FILE: Final = "added_tokens.json"
SENTENCE_FILE: Final = "sentence_bert_config.json"
# Files that decide ids or lengths together with tokenizer.json or vocab.txt
TOKENIZER_SIDE_FILES: Final = (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE, SENTENCE_FILE)


class _Field(NamedTuple):
    ours: str
    default: int | float


# transformers' names → ours, and ELECTRA's defaults
FIELDS: Final[Mapping[str, _Field]] = {
    "vocab_size": _Field("vocab_size", 30522),
    "num_hidden_layers": _Field("num_layers", 12),
    "num_attention_heads": _Field("num_heads", 4),
    "hidden_size": _Field("hidden_dim", 256),
    "embedding_size": _Field("embedding_dim", 128),
    "intermediate_size": _Field("intermediate_dim", 1024),
    "hidden_dropout_prob": _Field("dropout", 0.1),
    "max_position_embeddings": _Field("max_sequence_length", 512),
    "type_vocab_size": _Field("num_segments", 2),
}

# BERT's defaults, if they differ from ELECTRA's
BERT_DEFAULTS: Final[Mapping[str, int]] = {
    "num_attention_heads": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
}

# Architectures that `ElectraBackbone` computes → their own defaults
MODEL_TYPES: Final[Mapping[str, Mapping[str, int]]] = {"electra": {}, "bert": BERT_DEFAULTS}

# Other encoders that are often asked for → the reason why `ElectraBackbone` cannot compute them
OTHER_MODEL_TYPES: Final[Mapping[str, str]] = {
    "albert": "its layers share their weights",
    "camembert": "its positions are counted from the padding id",
    "deberta": "its attention uses relative positions",
    "deberta-v2": "its attention uses relative positions",
    "distilbert": "it has no segment embeddings and names its layers differently",
    "modernbert": "its attention uses rotary positions and local windows",
    "mpnet": "its attention adds a bias of relative positions",
    "roberta": "its positions are counted from the padding id",
    "xlm-roberta": "its positions are counted from the padding id",
}

# transformers' names of activations: ours. The two forms differ by up to 5e-4.
ACTIVATIONS: Final[Mapping[str, str]] = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}

# Our names: the ones that every version of transformers knows
SAVED_ACTIVATIONS: Final[Mapping[str, str]] = {"gelu": "gelu", "gelu_tanh": "gelu_new"}

# Fields with the only value that is accepted: others mean another architecture, or code in the checkpoint
REQUIRED: Final[Mapping[str, object]] = {
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": None,
    "auto_map": None,
}

# Weights that are never read, and why
UNSAFE_FILES: Final[Mapping[str, str]] = {
    "pytorch_model.bin": "is a pickle, which can run any code",
    "pytorch_model.bin.index.json": "leads to pickles, which can run any code",
    "model.keras": "holds a config that can run any code",
    "tf_model.h5": "is of TensorFlow classes that transformers no longer has",
    "flax_model.msgpack": "is of Flax classes that transformers no longer has",
}


def read_checkpoint_config(content: Mapping[str, object]) -> BackboneConfig:
    """Reads the architecture from a checkpoint's config.json.

    Raises:
        PresetError: `ElectraBackbone` does not compute this architecture, or a value is out of range.

    Example:
        >>> read_checkpoint_config({"model_type": "electra", "hidden_act": "gelu"}).parameters
        13548800
        >>> read_checkpoint_config({"model_type": "bert"}).embedding_dim
        768
    """
    defaults = _defaults(content)
    for name, valid in REQUIRED.items():
        if content.get(name, valid) != valid:
            raise PresetError(f"{name} must be {valid!r} or left out; got {content[name]!r:.40}")
    activation = content.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise PresetError(f"hidden_act must be one of {', '.join(ACTIVATIONS)}; got {activation!r:.40}")
    values = {field.ours: content.get(name, defaults.get(name, field.default)) for name, field in FIELDS.items()}
    if defaults is BERT_DEFAULTS:
        values["embedding_dim"] = values["hidden_dim"]
    return BackboneConfig.from_mapping({**values, "hidden_activation": ACTIVATIONS[activation]})


def _defaults(content: Mapping[str, object]) -> Mapping[str, int]:
    model_type = content.get("model_type")
    if isinstance(model_type, str) and model_type in MODEL_TYPES:
        return MODEL_TYPES[model_type]
    known = isinstance(model_type, str) and model_type in OTHER_MODEL_TYPES
    reason = f": {OTHER_MODEL_TYPES[str(model_type)]}" if known else ""
    raise PresetError(f"model_type must be {' or '.join(MODEL_TYPES)}; got {model_type!r:.40}{reason}")


def checkpoint_config(config: BackboneConfig, head: HeadConfig | None = None) -> dict[str, object]:
    """Returns the config.json of an architecture, the inverse of `read_checkpoint_config` and `find_head`."""
    model_type = MODEL_TYPE if head is None else head.architecture
    return {
        "architectures": [ENCODERS[model_type]],
        "model_type": model_type,
        **{name: getattr(config, field.ours) for name, field in FIELDS.items()},
        "attention_probs_dropout_prob": config.dropout,
        "hidden_act": SAVED_ACTIVATIONS[config.hidden_activation],
        "layer_norm_eps": REQUIRED["layer_norm_eps"],
        **(head_fields(head) if head else {}),
    }


def find_checkpoint_weights(path: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder; raises `PresetError`."""
    if (path / CHECKPOINT_FILE).is_file():
        return (path / CHECKPOINT_FILE,)
    if (path / CHECKPOINT_INDEX_FILE).is_file():
        return shards(path / CHECKPOINT_INDEX_FILE, ".safetensors")
    raise PresetError(
        f"{path}: must have {CHECKPOINT_FILE}, or {CHECKPOINT_INDEX_FILE} and its shards; {unsafe_files(path)}"
    )


def unsafe_files(path: Path) -> str:
    """Describes the unsafe weight files of a folder, for a message."""
    found = [f"{name} {reason}" for name, reason in UNSAFE_FILES.items() if (path / name).exists()]
    return "; ".join(found) or "it has neither"
