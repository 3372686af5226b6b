"""Preset sources, each of which turns a name into a checked local folder.

electra_demo                             EmbeddedSource, inside this package
electra_base_discriminator_uncased_en    BuiltInSource, the published six, from either hub
kaggle://…, hf://…                       HubSource, through the hubs' own clients
./my_preset                              LocalSource, any folder of either format, or a compiled artifact
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from electra_serve.errors import PresetError
from electra_serve.presets.catalog import CATALOG, DEMO_ID
from electra_serve.presets.folder import PresetFolder, read_preset_folder
from electra_serve.presets.hubs.build import build_hubs
from electra_serve.presets.hubs.handle import FORMS
from electra_serve.runtime.progress import NO_PROGRESS, Progress
from electra_serve.settings.loader import hub_settings_from_environment
from electra_serve.settings.schema import HubSettings


class PresetSource(Protocol):
    """Finds presets by name."""

    def find(self, preset: str, *, load_weights: bool) -> PresetFolder | None:
        """Returns the preset, or None if the name belongs to another source; raises `PresetError`."""


class EmbeddedSource:
    """The preset inside the package."""

    def __init__(self, root: Path = Path(__file__).parent / "embedded") -> None:
        self._root = root

    def find(self, preset: str, *, load_weights: bool) -> PresetFolder | None:
        """See `PresetSource.find`."""
        if preset != DEMO_ID:
            return None
        return read_preset_folder(self._root / preset, id_=preset, source="embedded", load_weights=load_weights)


class LocalSource:
    """Any folder: a KerasHub preset, a transformers checkpoint, or an artifact compiled of either."""

    def __init__(self, progress: Progress = NO_PROGRESS) -> None:
        self._progress = progress

    def find(self, preset: str, *, load_weights: bool) -> PresetFolder | None:
        """See `PresetSource.find`."""
        path = Path(preset)
        if not preset or not _is_folder(path):
            return None
        return read_preset_folder(
            path, id_=path.resolve().name, source="local", load_weights=load_weights, progress=self._progress
        )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the name is too long, or a parent is not readable
        return False


def default_sources(settings: HubSettings | None = None, progress: Progress | None = None) -> tuple[PresetSource, ...]:
    """Returns all sources in order. Built-in ids win over a folder of the same name, as in KerasHub.

    Args:
        settings: Hub settings; default: from the environment.
        progress: Receives the progress of downloads and checks; default: as `build_hubs`.
    """
    hubs = build_hubs(hub_settings_from_environment() if settings is None else settings, progress=progress)
    return (EmbeddedSource(), hubs.built_in, hubs.handles, LocalSource(progress or NO_PROGRESS))


def resolve_preset(
    preset: str, *, load_weights: bool = True, sources: Sequence[PresetSource] | None = None
) -> PresetFolder:
    """Finds a preset.

    Args:
        preset: A built-in id or its alias, a handle on a hub, or the path of a folder.
        load_weights: False for the architecture only, without weight files.
        sources: Default: `default_sources()`.

    Raises:
        PresetError: No source has it, or its folder is invalid.

    Example:
        >>> resolve_preset("electra_base_discriminator_en", load_weights=False).config.hidden_dim
        768
    """
    for source in default_sources() if sources is None else sources:
        found = source.find(preset, load_weights=load_weights)
        if found is not None:
            return found
    raise PresetError(f"preset must be {_valid()}; got {preset!r:.120}")


def _valid() -> str:
    handles = ", ".join(FORMS.values())
    return f"a folder in KerasHub's or transformers' format, {handles}, or one of {', '.join([DEMO_ID, *CATALOG])}"
