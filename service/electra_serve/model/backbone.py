"""`ElectraBackbone`: KerasHub's published model and API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Self

import keras

from electra_serve.errors import PresetError
from electra_serve.model.attention import PACKAGE, Tensor, mask_to_bias
from electra_serve.model.initializers import KernelInitializer, truncated_normal, zeros
from electra_serve.model.layers import PositionEmbedding, TransformerEncoder, dense, layer_norm
from electra_serve.model.weights import restore
from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.config import HIDDEN_ACTIVATIONS, BackboneConfig
from electra_serve.presets.files import write_json
from electra_serve.presets.folder import (
    BACKBONE_CLASS_NAME,
    BACKBONE_CLASSES,
    CONFIG_FILE,
    METADATA_FILE,
    WEIGHTS_FILE,
    PresetFolder,
)
from electra_serve.presets.sources import resolve_preset

KERAS_HUB_CLASS: Final = ("keras_hub.src.models.electra.electra_backbone", "keras_hub>ElectraBackbone")
# module and registered name in a saved config; only the registered name matters for loading
OUR_CLASS: Final = (__name__, f"{PACKAGE}>ElectraBackbone")


class BackboneOutput(NamedTuple):
    """Output of the backbone: a tuple that can also be indexed by name, as KerasHub's dict."""

    sequence_output: Tensor  # (B, T, D), final hidden state of every position
    pooled_output: Tensor  # (B, D), tanh of a dense layer on position 0

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        if key not in self._fields:
            raise KeyError(key)
        return getattr(self, key)


class Backbone(keras.Model):
    """Base class of encoders, with presets and a config."""

    @classmethod
    def from_preset(cls, preset: str, load_weights: bool = True, **kwargs: Any) -> Self:
        """Builds the model of a preset; on `Backbone` itself, the preset selects the class.

        Args:
            preset: A built-in id or its alias (see `presets`), or the path of a KerasHub preset or transformers model.
            load_weights: False for random weights; a built-in id then needs no files.
            **kwargs: Overrides of the preset's config: `dropout`, `dtype`, `name`, `trainable`, ….

        Raises:
            PresetError: The preset does not exist, or its files are invalid.
            TypeError: The preset is of another class.
        """
        folder = resolve_preset(preset, load_weights=load_weights)
        backbone_class = BACKBONES[folder.registered_name]
        if not issubclass(backbone_class, cls):
            raise TypeError(f"the preset must be a {cls.__name__}; {folder.id} is a {backbone_class.__name__}")
        return backbone_class.from_folder(folder, load_weights=load_weights, **kwargs)

    @classmethod
    def from_folder(cls, folder: PresetFolder, *, load_weights: bool, **kwargs: Any) -> Self:
        """Builds the model of a resolved preset; see `from_preset`."""
        initializer = zeros if load_weights else truncated_normal
        backbone = cls(**{**folder.config.to_mapping(), "kernel_initializer": initializer, **kwargs})
        if load_weights:
            restore(backbone.weights_by_path(), folder, backbone.config)
        return backbone

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds a model without its weights from `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(PACKAGE)
class ElectraBackbone(Backbone):
    """An ELECTRA encoder (https://arxiv.org/abs/2003.10555) with KerasHub's API and weights.

    Inputs are `token_ids`, `segment_ids` and `padding_mask`, each (B, T) integers with any T. The result is a
    `BackboneOutput`.

    Args:
        vocab_size: Rows of the token embedding; required, under this name or as `vocabulary_size`.
        num_layers: Number of transformer layers.
        num_heads: Attention heads per layer; divides `hidden_dim`.
        hidden_dim: D, the width of the encoder and of both outputs.
        embedding_dim: Width of the embeddings; by default `hidden_dim`.
        intermediate_dim: Width of the feed-forward layer.
        dropout: Dropout rate, in training.
        max_sequence_length: Longest T.
        num_segments: Number of segments.
        dtype: A dtype's name or a `keras.DTypePolicy`; softmax and layer normalization are always float32.
        vocabulary_size: Another name for `vocab_size`.
        kernel_initializer: Initializer of matrices; not part of the config.
        hidden_activation: `gelu_tanh`, as KerasHub, or `gelu`, the exact form of transformers' checkpoints.
        **kwargs: `name` and `trainable`.

    Raises:
        TypeError: A required size is missing, or an argument is unknown or given twice.
        ValueError: A value is out of range, or `num_heads` does not divide `hidden_dim`.

    Example:
        >>> import numpy as np
        >>> backbone = ElectraBackbone(
        ...     vocabulary_size=1000, num_layers=2, num_heads=2, hidden_dim=32, intermediate_dim=64
        ... )
        >>> ids = np.ones((1, 12), "int32")
        >>> sequence_output, pooled_output = backbone({"token_ids": ids, "segment_ids": ids, "padding_mask": ids})
        >>> tuple(sequence_output.shape), tuple(pooled_output.shape)
        ((1, 12, 32), (1, 32))
    """

    # published checkpoints by id
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {id_: preset.metadata for id_, preset in CATALOG.items()}

    def __init__(
        self,
        vocab_size: int | None = None,
        num_layers: int | None = None,
        num_heads: int | None = None,
        hidden_dim: int | None = None,
        embedding_dim: int | None = None,
        intermediate_dim: int | None = None,
        dropout: float = 0.1,
        max_sequence_length: int = 512,
        num_segments: int = 2,
        dtype: Any = None,
        *,
        vocabulary_size: int | None = None,
        hidden_activation: str = "gelu_tanh",
        kernel_initializer: KernelInitializer = truncated_normal,
        **kwargs: Any,
    ) -> None:
        if vocab_size is not None and vocabulary_size is not None:
            raise TypeError("vocabulary_size is another name for vocab_size; got both")
        _reject_unknown(kwargs)
        config = _checked(
            {
                "vocab_size": vocabulary_size if vocab_size is None else vocab_size,
                "num_layers": num_layers,
                "num_heads": num_heads,
                "hidden_dim": hidden_dim,
                "embedding_dim": hidden_dim if embedding_dim is None else embedding_dim,
                "intermediate_dim": intermediate_dim,
                "dropout": dropout,
                "max_sequence_length": max_sequence_length,
                "num_segments": num_segments,
                "hidden_activation": hidden_activation,
            }
        )
        policy = keras.dtype_policies.get(dtype)
        self._make_layers(config, policy, kernel_initializer)
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "segment_ids", "padding_mask")
        }
        hidden = self.embed(inputs["token_ids"], inputs["segment_ids"])
        bias = mask_to_bias(inputs["padding_mask"])
        for layer in self.transformer_layers:
            hidden = layer(hidden, attention_bias=bias)
        super().__init__(inputs=inputs, outputs=BackboneOutput(hidden, self.pool(hidden)), **kwargs)
        self.dtype_policy = policy
        self.config = config
        for name, value in config.to_mapping().items():
            setattr(self, name, value)  # such as `backbone.hidden_dim`, as in KerasHub

    def _make_layers(self, config: BackboneConfig, dtype: keras.DTypePolicy, initializer: KernelInitializer) -> None:
        hidden_dim, width, rate = config.hidden_dim, config.embedding_dim, config.dropout
        make = partial(dense, dtype=dtype, kernel_initializer=initializer)
        self.token_embedding = keras.layers.ReversibleEmbedding(
            config.vocab_size, width, embeddings_initializer=initializer(), dtype=dtype, name="token_embedding"
        )
        self.position_embedding = PositionEmbedding(
            config.max_sequence_length, initializer, dtype=dtype, name="position_embedding"
        )
        self.segment_embedding = keras.layers.Embedding(
            config.num_segments, width, embeddings_initializer=initializer(), dtype=dtype, name="segment_embedding"
        )
        self.embeddings_add = keras.layers.Add(dtype=dtype, name="embeddings_add")
        self.embeddings_layer_norm = layer_norm(dtype, "embeddings_layer_norm")
        self.embeddings_dropout = keras.layers.Dropout(rate, dtype=dtype, name="embeddings_dropout")
        self.embeddings_projection = make(hidden_dim, "embeddings_projection") if width != hidden_dim else None
        self.transformer_layers = [
            TransformerEncoder(
                hidden_dim,
                config.num_heads,
                config.intermediate_dim,
                rate,
                config.hidden_activation,
                initializer,
                dtype=dtype,
                name=f"transformer_layer_{i}",
            )
            for i in range(config.num_layers)
        ]
        self.pooled_dense = make(hidden_dim, "pooled_dense", activation="tanh")

    def embed(self, token_ids: Tensor, segment_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Maps (B, T) ids to the first layer's input, (B, T, D); positions are 0 to T - 1 by default."""
        tokens = self.token_embedding(token_ids)  # (B, T, E)
        positions = self.position_embedding(tokens, position_ids)
        x = self.embeddings_add((tokens, positions, self.segment_embedding(segment_ids)))
        x = self.embeddings_dropout(self.embeddings_layer_norm(x))
        return x if self.embeddings_projection is None else self.embeddings_projection(x)  # (B, T, D)

    def pool(self, hidden: Tensor) -> Tensor:
        """Maps the last hidden states, (B, T, D), to `pooled_output`, (B, D)."""
        return self.pooled_dense(hidden[:, 0, :])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain values."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **self.config.to_mapping(),
        }

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Writes a preset folder that loads here and in KerasHub: config, metadata and weights.

        Only a model with KerasHub's activation is saved as KerasHub's class, which ignores that setting.
        """
        folder = Path(preset_dir)
        as_keras_hub = self.config.hidden_activation == HIDDEN_ACTIVATIONS[0]
        module, registered_name = KERAS_HUB_CLASS if as_keras_hub else OUR_CLASS
        config = {
            "module": module,
            "class_name": BACKBONE_CLASS_NAME,
            "config": self.get_config(),
            "registered_name": registered_name,
        }
        metadata = {"keras_version": keras.__version__, "parameter_count": self.count_params(), "tasks": []}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_FILE, config)
        write_json(folder / METADATA_FILE, metadata)
        self.save_weights(folder / WEIGHTS_FILE)

    def weights_by_path(self) -> dict[str, keras.Variable]:
        """Returns every variable by its path in a preset's h5 files, such as `layers/embedding/vars/0`."""
        return {
            f"layers/{group}/vars/{index}": variable
            for group, layer in self._weighted_layers()
            for index, variable in enumerate(layer.weights)
        }

    def _weighted_layers(self) -> Iterator[tuple[str, keras.layers.Layer]]:
        """Yields layers by the names that Keras derives from their classes in KerasHub's files."""
        yield "reversible_embedding", self.token_embedding
        yield "position_embedding", self.position_embedding
        yield "embedding", self.segment_embedding
        yield "layer_normalization", self.embeddings_layer_norm
        denses = (self.embeddings_projection, self.pooled_dense)
        yield from _numbered("dense", [layer for layer in denses if layer is not None])
        for name, encoder in _numbered("transformer_encoder", self.transformer_layers):
            for part, layer in encoder.weighted_layers().items():
                yield f"{name}/{part}", layer


def _reject_unknown(arguments: Mapping[str, Any]) -> None:
    """Rejects arguments that Keras would ignore, such as a misspelled `dropout`."""
    unknown = [name for name in arguments if name not in ("name", "trainable")]
    if unknown:
        raise TypeError(f"ElectraBackbone takes no argument {', '.join(unknown)}")


def _checked(values: Mapping[str, Any]) -> BackboneConfig:
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise TypeError(f"ElectraBackbone needs a value for {', '.join(missing)}")
    try:
        return BackboneConfig.from_mapping(values)
    except PresetError as error:
        raise ValueError(str(error)) from error


def _numbered(name: str, layers: Iterable[keras.layers.Layer]) -> Iterator[tuple[str, keras.layers.Layer]]:
    return ((f"{name}_{i}" if i else name, layer) for i, layer in enumerate(layers))  # as Keras numbers them


# registered name in a preset → its class
BACKBONES: Final[Mapping[str, type[Backbone]]] = dict.fromkeys(BACKBONE_CLASSES, ElectraBackbone)
