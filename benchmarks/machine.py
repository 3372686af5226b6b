"""Description of the machine, without which numbers mean nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

LIBRARIES: Final = (
    "openvino", "tensorflow", "tensorflow-cpu", "jax", "keras", "keras-hub", "onnxruntime", "torch", "transformers",
    "litserve", "grpcio", "uvicorn",
)  # fmt: skip
FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
CPUINFO: Final = Path("/proc/cpuinfo")


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> dict[str, str | int]:
    """Describes processor, cores, memory and versions of the libraries."""
    cpu = _cpuinfo()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "instructions": " ".join(flag for flag in FLAGS if flag in cpu.get("flags", "").split()),
        "cores": cores(),
        "memory_gib": round(pages / 2**30),
        "python": platform.python_version(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def _cpuinfo() -> dict[str, str]:
    """Linux' own account of the first processor; empty elsewhere."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").split("\n\n", maxsplit=1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
