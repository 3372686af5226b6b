"""The code of docs/clients.md runs as it is printed."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pytest

from tests.conformance_clients.docs_code import CODE, OIP, run, run_code
from tests.conformance_clients.served import ROOT, Served

TEXTS: Final = ("Alice fell down a well.", "The Queen made some tarts.")


def test_each_section_is_tested() -> None:
    assert set(CODE) == {"OpenAI", "LangChain", "LlamaIndex", "Cohere", "Hugging Face", *OIP}


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
