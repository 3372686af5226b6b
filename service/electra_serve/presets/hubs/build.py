"""Builds the hubs' sources from the settings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from electra_serve.presets.hubs.cache import (
    PresetCache,
    client_caches,
    configured_cache_dir,
    default_cache_dir,
    home_dir,
)
from electra_serve.presets.hubs.fetcher import Fetcher, RetryLimits
from electra_serve.presets.hubs.handle import HUBS
from electra_serve.presets.hubs.process import FetchLimits, FetchProcess
from electra_serve.presets.hubs.progress import ProgressLog
from electra_serve.presets.hubs.source import BuiltInSource, HubSource
from electra_serve.runtime.progress import NO_PROGRESS, Progress, ProgressBar
from electra_serve.settings.schema import HubSettings

LOGGER: Final = "electra_serve.presets"
_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})  # values that huggingface_hub accepts


@dataclass(frozen=True, slots=True)
class Hubs:
    """The cache, and the sources of handles and of published ids."""

    cache: PresetCache
    handles: HubSource
    built_in: BuiltInSource


def build_hubs(
    settings: HubSettings,
    *,
    environment: Mapping[str, str] = os.environ,
    terminal: TextIO = sys.stderr,
    progress: Progress | None = None,
) -> Hubs:
    """Builds the sources; fetches nothing and imports no client.

    Without `progress`, downloads are shown on `terminal` if it is one, else in the log.
    """
    log = logging.getLogger(LOGGER)
    configured = settings.cache_dir
    root = configured_cache_dir(configured, environment) if configured else default_cache_dir(environment)
    offline = settings.offline or environment.get("HF_HUB_OFFLINE", "").upper() in _TRUE
    if root is not None and (configured or home_dir(environment) is None):
        environment = {**environment, **client_caches(root)}
    cache = PresetCache(root)
    downloads = progress or (ProgressBar(terminal) if terminal.isatty() else ProgressLog(log))
    process = FetchProcess(FetchLimits(settings.stall_timeout_s, settings.max_bytes), environment, downloads)
    fetcher = Fetcher(cache, process.run, RetryLimits(settings.timeout_s, settings.attempts), log)
    handles = HubSource(cache, fetcher, offline=offline, log=log, progress=progress or NO_PROGRESS)
    order = sorted(HUBS, key=lambda hub: hub != settings.prefer)
    return Hubs(cache, handles, BuiltInSource(handles, order, log))
