"""Limit of file descriptors: each connection takes one, and processes start with few."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Final

RESERVED_DESCRIPTORS: Final = 256  # reserved for files, engines, event loops, probes, and metrics and admin connections
NO_LIMIT_MEANS: Final = 2**20  # limit to request if the system sets none; the kernel's own is at least as high


def raise_descriptor_limit() -> int:
    """Raises the process's limit of open files and connections as far as allowed, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = NO_LIMIT_MEANS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft


def fit_connections(descriptors: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """Lowers connection limits in proportion, at least to 1, so that `descriptors` suffice with a reserve.

    Example:
        >>> fit_connections(1024, (4096, 4096)), fit_connections(256, (300, 100)), fit_connections(10_000, (4096, 4096))
        ((384, 384), (96, 32), (4096, 4096))
    """
    available = descriptors - min(RESERVED_DESCRIPTORS, descriptors // 2)
    total = sum(wanted)
    if total <= available:
        return tuple(wanted)
    return tuple(max(limit * available // total, 1) for limit in wanted)
