"""Clients of Text Embeddings Inference."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.conformance_clients.served import KEY, Served
from tests.conformance_clients.texts import LONG, TEXTS

TOLERANCE: Final = 1e-5


@pytest.mark.parametrize("address", ["model", "base_url"])
def test_feature_extraction(address: str, served: Served) -> None:
    """With a `model`, it posts to the root."""
    where: dict[str, Any] = {"model": served.url} if address == "model" else {"base_url": f"{served.url}/embed"}
    client = InferenceClient(**where, token=KEY)
    found = np.concatenate([client.feature_extraction(text) for text in TEXTS])
    np.testing.assert_allclose(found, served.vectors(TEXTS), rtol=0, atol=TOLERANCE)
    batch = client.feature_extraction(list(TEXTS), normalize=True, truncate=True)
    np.testing.assert_allclose(batch, served.vectors(TEXTS), rtol=0, atol=TOLERANCE)


def test_errors(served: Served) -> None:
    client = InferenceClient(model=served.url, token=KEY)
    with pytest.raises(HfHubHTTPError) as caught:
        client.feature_extraction(LONG, truncate=False)
    assert caught.value.response.status_code in {400, 413, 422}
    assert {"error", "error_type"} <= caught.value.response.json().keys()


def test_sentence_similarity(served: Served) -> None:
    client = InferenceClient(model=f"{served.url}/similarity", token=KEY)
    found = client.sentence_similarity(TEXTS[0], other_sentences=list(TEXTS[1:]))
    vectors = served.vectors(TEXTS)
    np.testing.assert_allclose(found, vectors[1:] @ vectors[0], rtol=0, atol=TOLERANCE)
