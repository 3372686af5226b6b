"""Converts request messages to the service's types: no I/O, clock or log.

Checks only what a message can get wrong by itself; `electra_serve.serving.service` checks what a request means, for
both transports. Counts and shapes are checked before any array is created, so a request's cost is bounded by its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from electra_serve.api.grpc.parsing import reject_unknown_fields
from electra_serve.api.request_options import combine_truncation
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import INTEGER_TYPES, type_name
from electra_serve.serving.classification.results import ClassifyOptions
from electra_serve.tensors import (
    DEFAULT_OUTPUTS,
    Aggregation,
    IntArray,
    Output,
    Outputs,
    TextInput,
    TokenInput,
    Truncation,
)

OUTPUTS: Final[Mapping[int, Output]] = MappingProxyType(
    {
        pb.OUTPUT_SEQUENCE: Output.SEQUENCE,
        pb.OUTPUT_POOLED: Output.POOLED,
        pb.OUTPUT_CLS: Output.CLS,
        pb.OUTPUT_MEAN: Output.MEAN,
        pb.OUTPUT_EMBEDDING: Output.EMBEDDING,
        pb.OUTPUT_LOGITS: Output.LOGITS,
        pb.OUTPUT_TOKEN_LOGITS: Output.TOKEN_LOGITS,
    }
)

AnyRequest: TypeAlias = "pb.EncodeRequest | pb.ClassifyRequest | pb.EmbedRequest"

AGGREGATIONS: Final[Mapping[int, Aggregation]] = MappingProxyType(
    {
        pb.AGGREGATION_NONE: Aggregation.NONE,
        pb.AGGREGATION_FIRST: Aggregation.FIRST,
        pb.AGGREGATION_SIMPLE: Aggregation.SIMPLE,
    }
)

TRUNCATIONS: Final[Mapping[int, Truncation]] = MappingProxyType(
    {
        pb.TRUNCATION_NONE: Truncation.NONE,
        pb.TRUNCATION_RIGHT: Truncation.RIGHT,
        pb.TRUNCATION_LEFT: Truncation.LEFT,
        pb.TRUNCATION_LONGEST_FIRST: Truncation.LONGEST_FIRST,
        pb.TRUNCATION_ONLY_FIRST: Truncation.ONLY_FIRST,
        pb.TRUNCATION_ONLY_SECOND: Truncation.ONLY_SECOND,
    }
)


def to_input(message: AnyRequest, max_sequences: int) -> TokenInput | TextInput:
    """Returns the sequences of a request without unknown fields; does not check ranges and lengths.

    Raises:
        InvalidInput: A tensor's type, rank, dimensions or number of bytes is wrong.
        MalformedRequest: The request has no input, or a field inside it is unknown.
        PayloadTooLarge: There are more than `max_sequences`.
    """
    match message.WhichOneof("input"):
        case "tokens":
            return _to_tokens(message.tokens, max_sequences)
        case "text":
            return _to_texts(message.text, max_sequences)
        case _:
            raise MalformedRequest("one of tokens and text must be set; received neither", field="input")


def to_outputs(values: Sequence[int]) -> Outputs:
    """Returns the requested outputs, or the defaults; raises `InvalidInput` for an unknown one, or for too many."""
    if not values:
        return DEFAULT_OUTPUTS
    if len(values) > len(OUTPUTS):
        raise InvalidInput(f"outputs must be at most {len(OUTPUTS)} values; received {len(values)}", field="outputs")
    unknown = [value for value in values if value not in OUTPUTS]
    if unknown:
        valid = ", ".join(pb.Output.Name(value) for value in OUTPUTS)  # type: ignore[arg-type]
        raise InvalidInput(f"outputs must be among {valid}; received {unknown[0]}", field="outputs")
    return frozenset(OUTPUTS[value] for value in values)


def to_rows(tensors: Sequence[pb.Tensor], field: str, max_rows: int) -> list[IntArray]:
    """Splits tensors into sequences: one for each tensor of rank 1, shape[0] for each of rank 2.

    Returns:
        One (T,) int32 or int64 array per sequence, read-only views of the tensors' bytes. Raises as `to_input`.

    Example:
        >>> pair = pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[2, 1], data=bytes([7, 0, 0, 0, 8, 0, 0, 0]))
        >>> [row.tolist() for row in to_rows([pair], "token_ids", max_rows=2)]
        [[7], [8]]
    """
    _reject_too_many(len(tensors), field, max_rows)
    rows: list[IntArray] = []
    for index, tensor in enumerate(tensors):
        array = _to_integers(tensor, f"{field}[{index}]")
        if array.ndim == 1:
            rows.append(array)
        else:
            _reject_too_many(len(rows) + array.shape[0], field, max_rows)
            rows.extend(array)  # (B, T) is B times (T,)
    _reject_too_many(len(rows), field, max_rows)
    return rows


def to_truncation(message: pb.EncodeRequest | pb.ClassifyRequest) -> Truncation:
    """Returns the rule for sequences that are too long.

    Raises `InvalidInput` if it is unknown, and `MalformedRequest` if `truncate` contradicts it.
    """
    return combine_truncation(message.truncate, to_rule(message.truncation))


def to_rule(value: int) -> Truncation | None:
    """Returns the rule of an enum's value, None for the default; raises `InvalidInput` if it is unknown."""
    if value != pb.TRUNCATION_UNSPECIFIED and value not in TRUNCATIONS:
        valid = ", ".join(pb.Truncation.Name(known) for known in TRUNCATIONS)  # type: ignore[arg-type]
        raise InvalidInput(f"truncation must be one of {valid}; received {value}", field="truncation")
    return TRUNCATIONS.get(value)


def to_documents(message: pb.RerankRequest, max_documents: int) -> tuple[str, tuple[str, ...]]:
    """Returns the query and the documents; raises `PayloadTooLarge` for more than `max_documents`."""
    if len(message.documents) > max_documents:
        raise PayloadTooLarge(
            f"documents must have at most {max_documents} texts; received {len(message.documents)}", field="documents"
        )
    return message.query, tuple(message.documents)


def to_options(message: pb.ClassifyRequest) -> ClassifyOptions:
    """Returns the options of a classification; raises `InvalidInput` for an unknown aggregation."""
    value = message.aggregation
    if value != pb.AGGREGATION_UNSPECIFIED and value not in AGGREGATIONS:
        valid = ", ".join(pb.Aggregation.Name(known) for known in AGGREGATIONS)  # type: ignore[arg-type]
        raise InvalidInput(f"aggregation must be one of {valid}; received {value}", field="aggregation")
    return ClassifyOptions(
        top_k=message.top_k if message.HasField("top_k") else None,
        raw_scores=message.raw_scores,
        aggregation=AGGREGATIONS.get(value),
        stride=message.stride if message.HasField("stride") else None,
        max_answer_length=message.max_answer_length if message.HasField("max_answer_length") else None,
    )


def count(sequences: TokenInput | TextInput) -> int:
    """Counts the sequences."""
    return len(sequences.token_ids if isinstance(sequences, TokenInput) else sequences.texts)


def _to_tokens(message: pb.TokenInput, max_sequences: int) -> TokenInput:
    reject_unknown_fields(message, "tokens")

    def optional(tensors: Sequence[pb.Tensor], field: str) -> list[IntArray] | None:
        return to_rows(tensors, field, max_sequences) if tensors else None

    return TokenInput(
        token_ids=to_rows(message.token_ids, "token_ids", max_sequences),
        segment_ids=optional(message.segment_ids, "segment_ids"),
        padding_mask=optional(message.padding_mask, "padding_mask"),
    )


def _to_texts(message: pb.TextInput, max_sequences: int) -> TextInput:
    reject_unknown_fields(message, "text")
    _reject_too_many(len(message.texts), "text", max_sequences)
    return TextInput(tuple(_to_text(text, f"text[{index}]") for index, text in enumerate(message.texts)))


def _to_text(message: pb.Text, field: str) -> str | tuple[str, str]:
    reject_unknown_fields(message, field)
    return (message.first, message.second) if message.HasField("second") else message.first


def _reject_too_many(received: int, field: str, max_rows: int) -> None:
    if received > max_rows:
        raise PayloadTooLarge(
            f"a request may carry at most {max_rows} sequences; received at least {received}", field=field
        )


def _to_integers(tensor: pb.Tensor, field: str) -> IntArray:
    reject_unknown_fields(tensor, field)
    dtype = INTEGER_TYPES.get(tensor.dtype)
    if dtype is None:
        raise InvalidInput(
            f"dtype must be DATA_TYPE_INT32 or DATA_TYPE_INT64; received {type_name(tensor.dtype)}", field=field
        )
    shape = _shape(tensor, field)
    data = tensor.data
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"data must be {expected} bytes for shape {list(shape)} of {type_name(tensor.dtype)}; received {len(data)}",
            field=field,
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _shape(tensor: pb.Tensor, field: str) -> tuple[int, ...]:
    rank = len(tensor.shape)
    if rank not in {1, 2}:
        raise InvalidInput(f"shape must have 1 or 2 dimensions; received {rank}", field=field)
    shape = tuple(tensor.shape)
    if min(shape) < rank - 1:  # validation rejects empty sequences, for both transports
        raise InvalidInput(f"every dimension must be at least 1; received shape {list(shape)}", field=field)
    return shape
