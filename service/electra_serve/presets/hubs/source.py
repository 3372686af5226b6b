"""The two sources behind which the hubs are: handles, and the built-in ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from electra_serve.errors import PresetError
from electra_serve.presets.catalog import CatalogPreset, find
from electra_serve.presets.folder import BACKBONE_CLASSES, PresetFolder, read_preset_folder
from electra_serve.presets.hubs.cache import PresetCache
from electra_serve.presets.hubs.fetcher import Fetcher, HubError
from electra_serve.presets.hubs.handle import Handle, Hub, parse_handle
from electra_serve.presets.hubs.manifest import verify


class HubSource:
    """Presets by handle.

    A pinned handle that was fetched before needs no hub. Any other asks the hub at each start what it means now, and
    means what it meant last where the hub cannot tell.

    Args:
        cache: Where fetched presets are.
        fetcher: What fetches the others.
        offline: Whether to use only what is in the cache.
        log: Where it is told that a hub could not be asked.
    """

    def __init__(self, cache: PresetCache, fetcher: Fetcher, *, offline: bool, log: logging.Logger) -> None:
        self._cache = cache
        self._fetcher = fetcher
        self._offline = offline
        self._log = log

    def find(self, preset: str, *, load_weights: bool) -> PresetFolder | None:
        """See `PresetSource.find`."""
        handle = parse_handle(preset)
        return None if handle is None else self.get(handle, load_weights=load_weights)

    def get(self, handle: Handle, *, load_weights: bool) -> PresetFolder:
        """The preset of a handle, from the cache or the hub.

        Raises:
            PresetError: It cannot be had, or is not what it was when it was fetched.
        """
        return _read(handle, self.locate(handle), load_weights=load_weights)

    def cached(self, handle: Handle, *, load_weights: bool) -> PresetFolder | None:
        """The preset of a handle as it was fetched last; None where it never was.

        Raises:
            PresetError: It is not what it was when it was fetched.
        """
        folder = self._cache.find(handle)
        return None if folder is None else _read(handle, folder, load_weights=load_weights)

    def locate(self, handle: Handle) -> Path:
        """The folder of a handle, fetched if need be.

        Raises:
            PresetError: It cannot be had.
        """
        folder = self._cache.find(handle)
        if folder is not None and (handle.pinned or self._offline):
            return folder
        if self._offline:
            raise PresetError(
                f"{handle}: offline, it must be in {self._cache.root}, and is not: run `electra-serve presets pull "
                f"{handle}` online"
            )
        try:
            return self._fetcher.fetch(handle)
        except HubError as error:
            if folder is None or not error.outage:
                raise
            self._log.warning("%s; using revision %s, which was fetched earlier", error, folder.name)
            return folder


class BuiltInSource:
    """The published presets, by id: what is in the cache, else from one hub, else from the other.

    Args:
        hubs: The source of handles.
        order: Which hub to ask first.
        log: Where it is told that one hub failed.
    """

    def __init__(self, hubs: HubSource, order: Sequence[Hub], log: logging.Logger) -> None:
        self._hubs = hubs
        self._order = order
        self._log = log

    def find(self, preset: str, *, load_weights: bool) -> PresetFolder | None:
        """See `PresetSource.find`. Without weights it is only an architecture, and needs no files."""
        published = find(preset)
        if published is None:
            return None
        return self._load(published) if load_weights else architecture(published)

    def _load(self, published: CatalogPreset) -> PresetFolder:
        handles = built_in_handles(published, self._order)
        for handle in handles:
            folder = self._hubs.cached(handle, load_weights=True)
            if folder is not None:
                return _require_published(folder, published)
        failures: list[str] = []
        for handle in handles:
            try:
                return _require_published(self._hubs.get(handle, load_weights=True), published)
            except PresetError as error:
                self._log.warning("%s", error)
                failures.append(str(error))
        raise PresetError(f"{published.id} cannot be had: {'; '.join(dict.fromkeys(failures))}")


def built_in_handles(published: CatalogPreset, order: Sequence[Hub]) -> list[Handle]:
    """Where a published preset is, in that order."""
    handles = [parse_handle(published.kaggle_handle), parse_handle(published.hf_handle)]
    return sorted((handle for handle in handles if handle is not None), key=lambda handle: order.index(handle.hub))


def architecture(published: CatalogPreset) -> PresetFolder:
    """A published preset without its weights."""
    return PresetFolder(
        id=published.id,
        source="catalog",
        path=None,
        config=published.config,
        registered_name=BACKBONE_CLASSES[0],
        sha256=None,
        weights="random",
        weight_files=(),
        has_tokenizer=False,
    )


def _read(handle: Handle, folder: Path, *, load_weights: bool) -> PresetFolder:
    verify(folder)
    return read_preset_folder(folder, id_=handle.name, source=handle.hub, load_weights=load_weights)


def _require_published(folder: PresetFolder, published: CatalogPreset) -> PresetFolder:
    """Refuses another architecture than the id stands for."""
    if folder.config != published.config:
        raise PresetError(
            f"{published.id} has {published.parameters} parameters, as published; what {folder.source} has is another "
            f"architecture, with {folder.config.parameters}"
        )
    return folder
