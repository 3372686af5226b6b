"""Memory of the GPU, as its driver reports it."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

QUERY: Final = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0")


def device_memory_mib() -> float | None:
    """MiB in use on GPU 0, by all processes; None without a driver."""
    if shutil.which(QUERY[0]) is None:
        return None
    return float(subprocess.run(QUERY, capture_output=True, check=True, text=True).stdout.split()[0])
