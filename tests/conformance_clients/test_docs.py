"""The code of docs/clients.md runs as it is printed."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import pytest

from tests.conformance_clients.served import KEY, ROOT, Served

SECTION: Final = re.compile(r"^## ([^\n]+)\n+```python\n(.*?)```", re.DOTALL | re.MULTILINE)
CODE: Final = dict(SECTION.findall((ROOT / "docs" / "clients.md").read_text(encoding="utf-8")))
TEXTS: Final = ("Alice fell down a well.", "The Queen made some tarts.")


def run(name: str, served: Served) -> dict[str, Any]:
    """Runs the code of a section; returns the names that it has defined."""
    names: dict[str, Any] = {}
    exec(CODE[name].replace("http://127.0.0.1:8080", served.url).replace('"none"', f'"{KEY}"'), names)  # our own
    return names


def test_each_section_is_tested() -> None:
    assert set(CODE) == {"OpenAI", "LangChain", "LlamaIndex", "Cohere", "Hugging Face"}


@pytest.mark.parametrize("name", ["OpenAI", "LangChain", "LlamaIndex", "Hugging Face"])
def test_embedding_code(name: str, served: Served) -> None:
    np.testing.assert_allclose(run(name, served)["vectors"], served.vectors(TEXTS), rtol=0, atol=1e-5)


def test_rerank_code(served: Served) -> None:
    assert sorted(run("Cohere", served)["order"]) == [0, 1]
