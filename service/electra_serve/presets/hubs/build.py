"""Wires the hubs' sources together from the settings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from electra_serve.presets.hubs.cache import PresetCache, configured_cache_dir, default_cache_dir
from electra_serve.presets.hubs.fetcher import Fetcher, RetryLimits
from electra_serve.presets.hubs.handle import HUBS
from electra_serve.presets.hubs.process import FetchLimits, FetchProcess
from electra_serve.presets.hubs.progress import ProgressBar, ProgressLog
from electra_serve.presets.hubs.source import BuiltInSource, HubSource
from electra_serve.settings.schema import HubSettings

LOGGER: Final = "electra_serve.presets"
_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})
"""What huggingface_hub takes for yes."""


@dataclass(frozen=True, slots=True)
class Hubs:
    """Everything that has to do with hubs.

    Attributes:
        cache: Fetched presets.
        handles: The source of `kaggle://…` and `hf://…`.
        built_in: The source of the published ids.
    """

    cache: PresetCache
    handles: HubSource
    built_in: BuiltInSource


def build_hubs(
    settings: HubSettings,
    *,
    environment: Mapping[str, str] = os.environ,
    terminal: TextIO = sys.stderr,
) -> Hubs:
    """Builds the sources; nothing is fetched, and no client imported.

    Args:
        settings: Where to, how long, whether at all.
        environment: The hubs' own variables: tokens, endpoints, proxies, `HF_HUB_OFFLINE`.
        terminal: Where progress is drawn, if it is one; otherwise it is logged.
    """
    log = logging.getLogger(LOGGER)
    configured = settings.cache_dir
    cache = PresetCache(configured_cache_dir(configured, environment) if configured else default_cache_dir(environment))
    progress = ProgressBar(terminal) if terminal.isatty() else ProgressLog(log)
    bounds = FetchLimits(settings.stall_timeout_s, settings.max_bytes)
    process = FetchProcess(bounds, environment, progress)
    fetcher = Fetcher(cache, process.run, RetryLimits(settings.timeout_s, settings.attempts), log)
    offline = settings.offline or environment.get("HF_HUB_OFFLINE", "").upper() in _TRUE
    handles = HubSource(cache, fetcher, offline=offline, log=log)
    order = sorted(HUBS, key=lambda hub: hub != settings.prefer)
    return Hubs(cache, handles, BuiltInSource(handles, order, log))
