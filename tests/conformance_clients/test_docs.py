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
    return run_code(CODE[name], served)


def run_code(code: str, served: Served) -> dict[str, Any]:
    """Runs code with this service's address and key; returns the names that it has defined."""
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:8080", served.url).replace('"none"', f'"{KEY}"'), names)  # our own
    return names


def test_each_section_is_tested() -> None:
    assert set(CODE) == {"OpenAI", "LangChain", "LlamaIndex", "Cohere", "Hugging Face"}


@pytest.mark.parametrize("name", ["OpenAI", "LangChain", "LlamaIndex", "Hugging Face"])
def test_embedding_code(name: str, served: Served) -> None:
    np.testing.assert_allclose(run(name, served)["vectors"], served.vectors(TEXTS), rtol=0, atol=1e-5)


def test_rerank_code(served: Served) -> None:
    assert sorted(run("Cohere", served)["order"]) == [0, 1]


def test_the_readmes_code(served: Served) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^## Works with your client\n.*?```python\n(.*?)```", readme, re.DOTALL | re.MULTILINE)
    assert code is not None
    names = run_code(code[1], served)
    texts = names["texts"]
    for vectors in (
        [item.embedding for item in names["response"].data],
        names["chain"].embed_documents(texts),
        names["index"].get_text_embedding_batch(texts),
        names["features"],
    ):
        np.testing.assert_allclose(vectors, served.vectors(texts), rtol=0, atol=1e-5)
    assert sorted(result.index for result in names["ranked"].results) == [0, 1]
