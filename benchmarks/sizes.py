"""Measured architectures, and the extent of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.config import BackboneConfig

PRESETS: Final[Mapping[str, str]] = {
    "small": "electra_small_discriminator_uncased_en",
    "base": "electra_base_discriminator_uncased_en",
}
"""Size → published preset with its architecture."""


CONFIGS: Final[Mapping[str, BackboneConfig]] = {
    **{size: CATALOG[preset].config for size, preset in PRESETS.items()},
    "large": CATALOG["electra_large_discriminator_uncased_en"].config,
    "tiny": BackboneConfig(30522, 2, 4, 256, 128, 1024, max_sequence_length=128),
}
"""Size → architecture. `large` is for GPUs; `tiny`, small and short, shows on a CPU that something works."""


def config_of(size: str) -> BackboneConfig:
    """Returns one of `CONFIGS`."""
    return CONFIGS[size]


@dataclass(frozen=True, slots=True)
class Effort:
    """Extent of a run.

    Attributes:
        quick: Whether this is only to see that it works.
        sizes: Which architectures.
        rounds: Samples of each fixed shape, and of what else is short.
        mix_rounds: Samples of each service, and of each order of the natural mix, which take longer.
        shape_s: Seconds that a sample of a fixed shape takes, at least.
        sequences: Sequences of the natural mix that are encoded offline, by size.
        load_factor: How long services are under load, as a factor of what each scenario says.
        starts: Times that each engine is started.
        device: Where the part for GPUs computes: `gpu`, or `cpu` to see that it works.
        beside: Checkout that the part `beside` compares with.
    """

    quick: bool
    sizes: tuple[str, ...]
    rounds: int
    mix_rounds: int
    shape_s: float
    sequences: Mapping[str, int]
    load_factor: float
    starts: int
    device: str = "gpu"
    beside: Path | None = None


QUICK: Final = Effort(
    quick=True,
    sizes=("small",),
    rounds=2,
    mix_rounds=1,
    shape_s=0.05,
    sequences={"small": 64},
    load_factor=0.15,
    starts=1,
)
FULL: Final = Effort(
    quick=False,
    sizes=("small", "base"),
    rounds=7,
    mix_rounds=3,
    shape_s=0.25,
    sequences={"small": 256, "base": 64},
    load_factor=1.0,
    starts=5,
)
