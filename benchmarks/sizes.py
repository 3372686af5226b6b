"""The two architectures that are measured, and how large a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.presets.catalog import CATALOG
from service.presets.config import BackboneConfig

PRESETS: Final[Mapping[str, str]] = {
    "small": "electra_small_discriminator_uncased_en",
    "base": "electra_base_discriminator_uncased_en",
}
"""Size → the published preset whose architecture it has."""


def config_of(size: str) -> BackboneConfig:
    """The architecture of `small` or `base`."""
    return CATALOG[PRESETS[size]].config


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        quick: Whether this is only to see that it works.
        sizes: Which architectures.
        rounds: Samples of each case.
        shape_s: Seconds that a sample of a fixed shape takes, at least.
        sequences: Sequences of the natural mix that are encoded offline, by size.
        load_s: Seconds that a service is under load, per sample.
        starts: Times that each engine is started.
    """

    quick: bool
    sizes: tuple[str, ...]
    rounds: int
    shape_s: float
    sequences: Mapping[str, int]
    load_s: float
    starts: int


QUICK: Final = Effort(
    quick=True, sizes=("small",), rounds=2, shape_s=0.05, sequences={"small": 64}, load_s=1.0, starts=1
)
FULL: Final = Effort(
    quick=False,
    sizes=("small", "base"),
    rounds=7,
    shape_s=0.25,
    sequences={"small": 256, "base": 96},
    load_s=5.0,
    starts=5,
)
