"""The shape of an ELECTRA encoder, as data: no Keras needed to read, check or count it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from electra_serve.errors import PresetError

# The largest value each field may have: a config that asks for more is an accident or an attack
LIMITS = {
    "vocab_size": 1_000_000,
    "num_layers": 96,
    "num_heads": 256,
    "hidden_dim": 16_384,
    "embedding_dim": 16_384,
    "intermediate_dim": 65_536,
    "max_sequence_length": 65_536,
    "num_segments": 64,
}

# Feed-forward activations: the tanh form of Google's code and KerasHub, and the exact one of transformers
HIDDEN_ACTIVATIONS = ("gelu_tanh", "gelu")


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Hyperparameters of `ElectraBackbone` under KerasHub's names; raises `PresetError` if one is out of range.

    Embeddings are projected if `embedding_dim` differs from `hidden_dim`, the width H of every output. `num_heads`
    divides `hidden_dim`.
    """

    vocab_size: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    embedding_dim: int
    intermediate_dim: int
    dropout: float = 0.1
    max_sequence_length: int = 512
    num_segments: int = 2
    hidden_activation: str = HIDDEN_ACTIVATIONS[0]

    def __post_init__(self) -> None:
        for name, largest in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise PresetError(f"{name} must be an integer from 1 to {largest}; received {value!r:.40}")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise PresetError(f"dropout must be at least 0 and below 1; received {self.dropout!r:.40}")
        if self.hidden_activation not in HIDDEN_ACTIVATIONS:
            valid = ", ".join(HIDDEN_ACTIVATIONS)
            raise PresetError(f"hidden_activation must be one of {valid}; received {self.hidden_activation!r:.40}")
        if self.hidden_dim % self.num_heads:
            received = f"hidden_dim {self.hidden_dim} and num_heads {self.num_heads}"
            raise PresetError(f"num_heads must divide hidden_dim; received {received}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> BackboneConfig:
        """Takes the fields it knows from a serialized backbone config and leaves Keras' own (`name`, `dtype`, …).

        Raises:
            PresetError: A field is missing or out of range.
        """
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        try:
            return cls(**known)  # type: ignore[arg-type]  # __post_init__ checks every type
        except TypeError as error:
            raise PresetError(f"the backbone config is incomplete: {error}") from error

    def to_mapping(self) -> dict[str, int | float | str]:
        """Every field under its own name, without `hidden_activation` where KerasHub's own is meant."""
        mapping = asdict(self)
        if self.hidden_activation == HIDDEN_ACTIVATIONS[0]:
            del mapping["hidden_activation"]
        return mapping

    @property
    def parameters(self) -> int:
        """Number of parameters of an `ElectraBackbone` of this shape."""
        h, e, i = self.hidden_dim, self.embedding_dim, self.intermediate_dim
        embeddings = (self.vocab_size + self.max_sequence_length + self.num_segments) * e + 2 * e
        projection = (e + 1) * h if e != h else 0
        attention = 4 * (h + 1) * h + 2 * h
        feed_forward = (h + 1) * i + (i + 1) * h + 2 * h
        pooler = (h + 1) * h
        return embeddings + projection + self.num_layers * (attention + feed_forward) + pooler
