"""Runs the code of docs/clients.md as it is printed."""

from __future__ import annotations

import re
from typing import Any, Final

from tests.conformance_clients.served import KEY, ROOT, Served

SECTION: Final = re.compile(r"^## ([^\n]+)\n+```python\n(.*?)```", re.DOTALL | re.MULTILINE)
CODE: Final = dict(SECTION.findall((ROOT / "docs" / "clients.md").read_text(encoding="utf-8")))
OIP: Final = ("Triton over REST", "Triton over gRPC", "KServe")
"""Sections that tests/conformance_oip runs."""


def run(name: str, served: Served) -> dict[str, Any]:
    """Runs the code of a section; returns the names that it has defined."""
    return run_code(CODE[name], served)


def run_code(code: str, served: Served) -> dict[str, Any]:
    """Runs code with this service's addresses and key; returns the names that it has defined."""
    names: dict[str, Any] = {}
    for printed, real in {
        "127.0.0.1:8080": served.url.removeprefix("http://"),
        "127.0.0.1:50051": served.target,
        '"none"': f'"{KEY}"',
    }.items():
        code = code.replace(printed, real)
    exec(code, names)  # our own
    return names
