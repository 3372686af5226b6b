"""Renders results as Text Embeddings Inference does, in pieces that leave the event loop free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Final, cast

import numpy as np
import orjson

from electra_serve.serving.classification.results import Label
from electra_serve.serving.classification.scores import sigmoid, softmax
from electra_serve.serving.classify import ClassifyResult
from electra_serve.serving.tokens import TokenizeResult, Tokens
from electra_serve.tensors import Float32Array

PIECE_ITEMS: Final = 1024
"""Most labels and tokens that are written under one hold of the interpreter's lock, in about a millisecond."""


def similarity_of(vectors: Sequence[Float32Array]) -> Float32Array:
    """Returns the cosines of the first unit vector and each other one."""
    cosines: Float32Array = np.stack(vectors[1:]) @ vectors[0]
    return cosines


def prediction_pieces(result: ClassifyResult, *, raw: bool, single: bool) -> Iterator[bytes]:
    """Renders lists of scores and labels from logits; one list for a single input."""
    rows = (_separated(_label_items(cast("Sequence[Label]", row), raw=raw)) for row in result.rows)
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
        yield from _separated(_token_items(row, result))
    yield b"]"


def _separated(items: Iterator[dict[str, object]]) -> Iterator[bytes]:
    """Renders a list, some items at a time."""
    yield b"["
    first = True
    while part := list(islice(items, PIECE_ITEMS)):
        yield (b"" if first else b",") + orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        first = False
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
