"""A request as it is meant, and how each transport writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import orjson

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers
from electra_serve.tensors import Output, Truncation

Rows = Sequence[Sequence[int]]

PB_OUTPUTS: Final[Mapping[Output, pb.Output.ValueType]] = MappingProxyType(
    {
        Output.SEQUENCE: pb.OUTPUT_SEQUENCE,
        Output.POOLED: pb.OUTPUT_POOLED,
        Output.CLS: pb.OUTPUT_CLS,
        Output.MEAN: pb.OUTPUT_MEAN,
        Output.EMBEDDING: pb.OUTPUT_EMBEDDING,
        Output.LOGITS: pb.OUTPUT_LOGITS,
        Output.TOKEN_LOGITS: pb.OUTPUT_TOKEN_LOGITS,
    }
)
PB_TRUNCATIONS: Final[Mapping[Truncation | None, pb.Truncation.ValueType]] = MappingProxyType(
    {None: pb.TRUNCATION_UNSPECIFIED}
    | {truncation: pb.Truncation.Value(f"TRUNCATION_{truncation.name}") for truncation in Truncation}
)


@dataclass(frozen=True, slots=True)
class Query:
    """Fields of a request, valid or not; None if the request omits them."""

    token_ids: Rows | None = None
    segment_ids: Rows | None = None
    padding_mask: Rows | None = None
    text: Sequence[str | tuple[str, str]] | None = None
    model: str | None = "tiny"
    outputs: Sequence[Output] | None = None
    truncate: bool = False
    truncation: Truncation | None = None

    def of(self, model: str | None) -> Query:
        """The same of another model."""
        return replace(self, model=model)


@dataclass(frozen=True, slots=True)
class Wire:
    """A request as bytes: a JSON body or an `EncodeRequest`.

    Attributes:
        data: The bytes.
        content_type: Content type in REST; gRPC has none.
    """

    data: bytes
    content_type: str = "application/json"


def to_json(query: Query, encoding_format: str = "float") -> Wire:
    """The request as REST has it."""
    fields = {
        "model": query.model,
        "token_ids": query.token_ids,
        "segment_ids": query.segment_ids,
        "padding_mask": query.padding_mask,
        "text": query.text,
        "outputs": query.outputs,
        "truncate": query.truncate or None,
        "truncation": query.truncation,
        "encoding_format": encoding_format,
    }
    return Wire(orjson.dumps({name: value for name, value in fields.items() if value is not None}))


def to_message(query: Query) -> Wire:
    """The request as gRPC has it."""
    return Wire(message(query).SerializeToString())


def message(query: Query) -> pb.EncodeRequest:
    """The request as a message."""
    request = pb.EncodeRequest(
        model=query.model or "",
        outputs=[PB_OUTPUTS[output] for output in query.outputs or ()],
        truncate=query.truncate,
        truncation=PB_TRUNCATIONS[query.truncation],
    )
    if query.token_ids is not None:
        request.tokens.CopyFrom(
            pb.TokenInput(
                token_ids=tensors(query.token_ids),
                segment_ids=tensors(query.segment_ids or ()),
                padding_mask=tensors(query.padding_mask or ()),
            )
        )
    if query.text is not None:
        request.text.CopyFrom(pb.TextInput(texts=[_text(text) for text in query.text]))
    return request


def tensors(rows: Rows) -> list[pb.Tensor]:
    """One int64 tensor of rank 1 for each row."""
    return [from_integers(np.array(row, np.int64)) for row in rows]


def _text(text: str | tuple[str, str]) -> pb.Text:
    return pb.Text(first=text) if isinstance(text, str) else pb.Text(first=text[0], second=text[1])
