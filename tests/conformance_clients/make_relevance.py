"""Makes `relevance.json` next to this script: transformers' logits of `QUERY` with each passage.

Run by `make golden`, in an environment with transformers and torch, from the repository's root:

    python -m tests.conformance_clients.make_relevance
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.conformance_clients.checkpoints import save_cross_encoder
from tests.conformance_clients.texts import PASSAGES, QUERY


def main() -> None:
    """Writes the file."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "ranker"
        save_cross_encoder(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        inputs = tokenizer(
            [QUERY] * len(PASSAGES), list(PASSAGES), truncation="only_second", padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**inputs).logits[:, 0].tolist()  # (N,)
    (Path(__file__).parent / "relevance.json").write_text(json.dumps(logits, indent=1) + "\n")


if __name__ == "__main__":
    main()
