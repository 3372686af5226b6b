"""File descriptors: each connection takes one, and processes are started with few."""

from __future__ import annotations

import resource
from typing import Final

OTHER_DESCRIPTORS: Final = 256
"""More than what is open beside HTTP connections: files, the event loop, and some gRPC connections."""
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
