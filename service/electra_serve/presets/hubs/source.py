"""Preset sources for the hubs: handles, and the built-in ids."""

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
from electra_serve.runtime.progress import NO_PROGRESS, Progress


class HubSource:
    """Presets by handle.

    A pinned handle in the cache needs no hub. Others are resolved at each start; during an outage, they keep their
    last revision. `offline` uses the caches only.
    """

    def __init__(
        self,
        cache: PresetCache,
        fetcher: Fetcher,
        *,
        offline: bool,
        log: logging.Logger,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        self._progress = progress
        self._cache = cache
        self._fetcher = fetcher
        self._offline = offline
        self._log = log

    def find(self, preset: str, *, load_weights: bool) -> PresetFolder | None:
        """See `PresetSource.find`."""
        handle = parse_handle(preset)
        return None if handle is None else self.get(handle, load_weights=load_weights)

    def get(self, handle: Handle, *, load_weights: bool) -> PresetFolder:
        """Returns the preset of a handle, from the cache or the hub; raises `PresetError`."""
        return self._read(handle, self._locate(handle), load_weights=load_weights)

    def cached(self, handle: Handle, *, load_weights: bool) -> PresetFolder | None:
        """Returns the preset of a handle from the cache; None if it was never fetched.

        Raises:
            PresetError: It has changed since it was fetched.
        """
        folder = self._cache.find(handle)
        return None if folder is None else self._read(handle, folder, load_weights=load_weights)

    def _read(self, handle: Handle, folder: Path, *, load_weights: bool) -> PresetFolder:
        verify(folder, self._progress)
        return read_preset_folder(
            folder, id_=handle.name, source=handle.hub, load_weights=load_weights, progress=self._progress
        )

    def _locate(self, handle: Handle) -> Path:
        cache = self._cache
        folder = cache.find(handle) if self._offline or not handle.pinned else cache.find_listed(handle)
        if folder is not None and (handle.pinned or self._offline):
            return folder
        if self._offline:
            folder = self._fetcher.adopt(handle)
            if folder is None:
                raise PresetError(
                    f"{handle}: not in the cache {cache.root} or in the client's, and hub.offline is set: run "
                    f"`electra-serve presets pull {handle}` online"
                )
            return folder
        try:
            return self._fetcher.fetch(handle)
        except HubError as error:
            folder = (cache.find(handle) or self._fetcher.adopt(handle)) if error.outage else None
            if folder is None:
                raise
            self._log.warning("%s; serving the cached revision %s", error, folder.name)
            return folder


class BuiltInSource:
    """The published presets by id: from the cache, else from the hubs in `order`."""

    def __init__(self, hubs: HubSource, order: Sequence[Hub], log: logging.Logger) -> None:
        self._hubs = hubs
        self._order = order
        self._log = log

    def find(self, preset: str, *, load_weights: bool) -> PresetFolder | None:
        """See `PresetSource.find`. Without weights it is only an architecture, which needs no files."""
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
        raise PresetError(f"cannot fetch {published.id}: {'; '.join(dict.fromkeys(failures))}")


def built_in_handles(published: CatalogPreset, order: Sequence[Hub]) -> list[Handle]:
    """Returns the handles of a published preset in the order of their hubs."""
    handles = [parse_handle(published.kaggle_handle), parse_handle(published.hf_handle)]
    return sorted((handle for handle in handles if handle is not None), key=lambda handle: order.index(handle.hub))


def architecture(published: CatalogPreset) -> PresetFolder:
    """Returns a published preset without its weights."""
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


def _require_published(folder: PresetFolder, published: CatalogPreset) -> PresetFolder:
    if folder.config != published.config:
        raise PresetError(
            f"{published.id} must have the published architecture with {published.parameters} parameters; "
            f"{folder.source} has another one with {folder.config.parameters}"
        )
    return folder
