"""File descriptors: each connection takes one, and processes are started with few."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Final

RESERVED_DESCRIPTORS: Final = 256
"""Kept for files, engines, event loops, probes, and the connections for metrics and admin."""
NO_LIMIT_MEANS: Final = 2**20
"""What to ask for where the system sets no limit: the kernel's own is no lower."""


def raise_descriptor_limit() -> int:
    """Lets this process open as many files and connections as it may.

    Returns:
        How many that is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = NO_LIMIT_MEANS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft


def fit_connections(descriptors: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """Lowers limits on connections, in proportion, to what descriptors there are; some stay in reserve.

    Args:
        descriptors: Files and connections that this process may open.
        wanted: The limits.

    Returns:
        The limits that fit, at least 1 each.

    Example:
        >>> fit_connections(1024, (4096, 4096)), fit_connections(256, (300, 100)), fit_connections(10_000, (4096, 4096))
        ((384, 384), (96, 32), (4096, 4096))
    """
    available = descriptors - min(RESERVED_DESCRIPTORS, descriptors // 2)
    total = sum(wanted)
    if total <= available:
        return tuple(wanted)
    return tuple(max(limit * available // total, 1) for limit in wanted)
