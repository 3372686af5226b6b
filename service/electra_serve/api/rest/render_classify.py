"""Renders a `ClassifyResult` as JSON, in pieces that leave the event loop free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Final

import numpy as np
import orjson

from electra_serve.api.rest.render import PIECE_ITEMS, RunOnThread, in_chunks, listed
from electra_serve.presets.heads import HeadKind
from electra_serve.serving.classification.results import Label, Span
from electra_serve.serving.classify import ClassifyResult

MEMBERS: Final[Mapping[HeadKind, str]] = MappingProxyType(
    {
        "sequence_classification": "labels",
        "token_classification": "spans",
        "question_answering": "answers",
        "replaced_token_detection": "spans",
    }
)
"""Member of the response that has the results of each head."""
_FIELDS: Final = tuple(field.name for field in fields(Span))


async def render_classify(result: ClassifyResult, on_thread: RunOnThread) -> list[bytes]:
    """Renders a response as chunks in order, on a thread if it is large."""
    return await in_chunks(classify_pieces(result), on_thread, large=result.items > PIECE_ITEMS)


def classify_pieces(result: ClassifyResult) -> Iterator[bytes]:
    """Renders `model`, `head`, the results, `usage` and `truncated`, in this order."""
    head = {"model": result.model, "head": result.head}
    yield orjson.dumps(head)[:-1] + f',"{MEMBERS[result.head]}":['.encode()
    for index, row in enumerate(result.rows):
        yield b"," if index else b""
        yield from listed(map(_members, row))
    usage = {"sequences": result.sequences, "tokens": result.tokens}
    yield b'],"usage":' + orjson.dumps(usage) + b',"truncated":' + orjson.dumps(result.truncated) + b"}"


def _members(item: Label | Span) -> dict[str, object]:
    """Returns the fields that are set; scores are float32, which have fewer digits."""
    score = np.float32(item.score)
    if isinstance(item, Label):
        return {"label": item.label, "score": score}
    given = {name: value for name in _FIELDS if (value := getattr(item, name)) is not None}
    if not item.label:
        del given["label"]
    return given | {"score": score}
