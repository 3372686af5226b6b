"""The built-in presets, as data: what each is called, what it is shaped like and where its weights are published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from electra_serve.presets.config import BackboneConfig


@dataclass(frozen=True, slots=True)
class CatalogPreset:
    """Published checkpoint, with KerasHub's id and description."""

    id: str
    config: BackboneConfig
    description: str

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.config.parameters

    @property
    def kaggle_handle(self) -> str:
        """Handle of the Keras preset on Kaggle."""
        return f"kaggle://keras/electra/keras/{self.id}/2"

    @property
    def hf_handle(self) -> str:
        """Handle of the Keras preset on the Hugging Face hub."""
        return f"hf://keras/{self.id}"

    @property
    def metadata(self) -> dict[str, object]:
        """Entry of KerasHub's `presets`, with its handle on the Hugging Face hub."""
        return {
            "metadata": {"description": self.description, "params": self.parameters, "path": "electra"},
            "kaggle_handle": self.kaggle_handle,
            "hf_handle": self.hf_handle,
        }


def _published(
    size: str, role: str, *, layers: int, heads: int, hidden: int, embedding: int, intermediate: int
) -> CatalogPreset:
    return CatalogPreset(
        id=f"electra_{size}_{role}_uncased_en",
        config=BackboneConfig(
            vocab_size=30522,
            num_layers=layers,
            num_heads=heads,
            hidden_dim=hidden,
            embedding_dim=embedding,
            intermediate_dim=intermediate,
        ),
        description=(
            f"{layers}-layer {size} ELECTRA {role} model. All inputs are lowercased. "
            "Trained on English Wikipedia + BooksCorpus."
        ),
    )


_PUBLISHED = (
    _published("small", "discriminator", layers=12, heads=4, hidden=256, embedding=128, intermediate=1024),
    _published("small", "generator", layers=12, heads=4, hidden=256, embedding=128, intermediate=1024),
    _published("base", "discriminator", layers=12, heads=12, hidden=768, embedding=768, intermediate=3072),
    _published("base", "generator", layers=12, heads=4, hidden=256, embedding=768, intermediate=1024),
    _published("large", "discriminator", layers=24, heads=16, hidden=1024, embedding=1024, intermediate=4096),
    _published("large", "generator", layers=24, heads=4, hidden=256, embedding=1024, intermediate=1024),
)

# The six published checkpoints by id
CATALOG: Final[Mapping[str, CatalogPreset]] = MappingProxyType({preset.id: preset for preset in _PUBLISHED})

# Ids as KerasHub's published example has them, without `_uncased`
ALIASES: Final[Mapping[str, str]] = MappingProxyType({id_.replace("_uncased", ""): id_ for id_ in CATALOG})

DEMO_ID: Final = "electra_demo"  # the preset inside this package: a small sentence encoder; see tools/demo_preset


def find(preset: str) -> CatalogPreset | None:
    """The published checkpoint of that id or alias, or None.

    Example:
        >>> find("electra_base_discriminator_en").id
        'electra_base_discriminator_uncased_en'
        >>> find("bert_base_en") is None
        True
    """
    return CATALOG.get(ALIASES.get(preset, preset))
