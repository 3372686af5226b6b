"""Renders results as Text Embeddings Inference does, in pieces that leave the event loop free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import cast

import numpy as np

from electra_serve.api.rest.render import listed
from electra_serve.serving.classification.results import Label
from electra_serve.serving.classification.scores import sigmoid, softmax
from electra_serve.serving.classify import ClassifyResult
from electra_serve.serving.tokens import TokenizeResult, Tokens
from electra_serve.tensors import Float32Array


def similarity_of(vectors: Sequence[Float32Array]) -> Float32Array:
    """Returns the cosines of the first unit vector and each other one."""
    cosines: Float32Array = np.stack(vectors[1:]) @ vectors[0]
    return cosines


def prediction_pieces(result: ClassifyResult, *, raw: bool, single: bool) -> Iterator[bytes]:
    """Renders lists of scores and labels from logits; one list for a single input."""
    rows = (listed(_label_items(cast("Sequence[Label]", row), raw=raw)) for row in result.rows)
    yield b"" if single else b"["
    for index, row in enumerate(rows):
        yield b"," if index else b""
        yield from row
    yield b"" if single else b"]"


def token_pieces(result: TokenizeResult) -> Iterator[bytes]:
    """Renders a list of tokens for each text."""
    yield b"["
    for index, row in enumerate(result.rows):
        yield b"," if index else b""
        yield from listed(_token_items(row, result))
    yield b"]"


def _label_items(row: Sequence[Label], *, raw: bool) -> Iterator[dict[str, object]]:
    logits = np.array([item.score for item in row], np.float32)
    scores = logits if raw else softmax(logits) if len(logits) > 1 else sigmoid(logits)
    return ({"score": score, "label": item.label} for score, item in zip(scores, row, strict=True))


def _token_items(row: Tokens, result: TokenizeResult) -> Iterator[dict[str, object]]:
    """Describes tokens; like TEI, offsets count the bytes of UTF-8."""
    text, ascii_only = row.text, row.text.isascii()
    places = [] if ascii_only else list(accumulate((len(char.encode()) for char in text), initial=0))
    columns = (row.token_ids.tolist(), row.starts.tolist(), row.ends.tolist(), row.special.tolist())
    for id_, start, end, special in zip(*columns, strict=True):
        if special:
            yield {"id": id_, "text": result.pieces[id_], "special": True, "start": None, "stop": None}
            continue
        first, stop = (start, end) if ascii_only else (places[start], places[end])
        yield {"id": id_, "text": text[start:end], "special": False, "start": first, "stop": stop}
