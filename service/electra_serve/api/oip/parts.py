"""Objects that a server of the protocol needs besides those of the native API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.statistics import ModelStatistics


@dataclass(frozen=True, slots=True)
class OipParts:
    """Parts of the protocol on one transport."""

    observer: RequestObserver  # of the transport `oip_rest` or `oip_grpc`
    statistics: Callable[[str], ModelStatistics]  # by the name of a model; counts requests of every transport
