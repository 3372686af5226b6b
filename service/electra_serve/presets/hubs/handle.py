"""Handles of presets: `kaggle://org/model/keras/variant[/version]` and `hf://org/repo[@revision]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

from electra_serve.errors import PresetError

Hub = Literal["kaggle", "hf"]

HUBS: Final[tuple[Hub, ...]] = ("kaggle", "hf")

FORMS: Final[Mapping[Hub, str]] = {
    "kaggle": "kaggle://org/model/keras/variant[/version]",
    "hf": "hf://org/repo[@revision]",
}

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"  # no two dots in a row: it becomes part of a path
_PATTERNS: Final[Mapping[Hub, re.Pattern[str]]] = {
    "kaggle": re.compile(rf"(?P<repo>{_NAME}/{_NAME}/keras/{_NAME})(?:/(?P<revision>[1-9][0-9]{{0,8}}))?"),
    "hf": re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>{_NAME}(?:/{_NAME})*))?"),
}
_PINNED: Final[Mapping[Hub, re.Pattern[str]]] = {
    "kaggle": re.compile(r"[1-9][0-9]{0,8}"),
    "hf": re.compile(r"[0-9a-f]{40}"),
}
_MAX_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Handle:
    """A preset on a hub."""

    hub: Hub  # `kaggle` or `hf`
    repo: str  # `org/model/keras/variant`, or `org/repo`
    # A version; or a branch, tag or commit. None for the newest version, or the default branch.
    revision: str | None = None

    def __str__(self) -> str:
        separator = "/" if self.hub == "kaggle" else "@"
        return f"{self.hub}://{self.repo}{separator + self.revision if self.revision else ''}"

    @property
    def name(self) -> str:
        """Last part of `repo`."""
        return self.repo.rpartition("/")[2]

    @property
    def pinned(self) -> bool:
        """True if the revision cannot move: a version on Kaggle, a commit on the Hugging Face hub."""
        return self.revision is not None and _PINNED[self.hub].fullmatch(self.revision) is not None

    def at(self, revision: str) -> Handle:
        """Returns the same preset at a pinned revision; raises `PresetError`."""
        pinned = replace(self, revision=revision)
        if not pinned.pinned:
            raise PresetError(f"{self}: the hub must return a version or a commit; got {revision!r:.60}")
        return pinned


def parse_handle(preset: str) -> Handle | None:
    """Parses a handle; returns None for a name without a scheme.

    Raises:
        PresetError: It has a scheme and is malformed.

    Example:
        >>> parse_handle("kaggle://keras/electra/keras/electra_small_discriminator_uncased_en/2").revision
        '2'
        >>> str(parse_handle("hf://google/electra-small-discriminator"))
        'hf://google/electra-small-discriminator'
        >>> parse_handle("./my_preset") is None
        True
    """
    scheme, separator, rest = preset.partition("://")
    if not separator:
        return None
    pattern = _PATTERNS.get(cast("Hub", scheme))
    match = pattern.fullmatch(rest) if pattern is not None and len(rest) <= _MAX_CHARACTERS else None
    if match is None:
        raise PresetError(f"a preset on a hub must be {' or '.join(FORMS.values())}; got {preset!r:.120}")
    return Handle(cast("Hub", scheme), match["repo"], match["revision"])
