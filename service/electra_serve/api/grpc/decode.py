"""What a request's message asks for, in the service's own types. Pure: no call, no clock, no log.

What a request means is checked by `electra_serve.serving.service`, for all transports alike; here only what a message
can get wrong by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from electra_serve.api.grpc.parsing import refuse_unknown_fields
from electra_serve.api.grpc.tensor import refuse_too_many, to_rows
from electra_serve.api.request_options import combine_truncation
from electra_serve.errors import InvalidInput, MalformedRequest
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.tensors import DEFAULT_OUTPUTS, IntArray, Output, Outputs, TextInput, TokenInput, Truncation

OUTPUTS: Final[Mapping[int, Output]] = MappingProxyType(
    {
        pb.OUTPUT_SEQUENCE: Output.SEQUENCE,
        pb.OUTPUT_POOLED: Output.POOLED,
        pb.OUTPUT_CLS: Output.CLS,
        pb.OUTPUT_MEAN: Output.MEAN,
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


def to_input(message: pb.EncodeRequest, max_sequences: int) -> TokenInput | TextInput:
    """The sequences of a request, ranges and lengths not yet checked.

    Args:
        message: As received; its own unknown fields have been refused.
        max_sequences: Most sequences that any model here takes.

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
    """The outputs that a request names, or the default ones where it names none.

    Raises:
        InvalidInput: A value is no output, or there are more values than outputs.
    """
    if not values:
        return DEFAULT_OUTPUTS
    if len(values) > len(OUTPUTS):
        raise InvalidInput(f"outputs must be at most {len(OUTPUTS)} values; received {len(values)}", field="outputs")
    unknown = [value for value in values if value not in OUTPUTS]
    if unknown:
        valid = ", ".join(pb.Output.Name(value) for value in OUTPUTS)  # type: ignore[arg-type]
        raise InvalidInput(f"outputs must be among {valid}; received {unknown[0]}", field="outputs")
    return frozenset(OUTPUTS[value] for value in values)


def to_truncation(message: pb.EncodeRequest) -> Truncation:
    """The rule of a request for sequences that are too long.

    Raises:
        InvalidInput: It is none of those that there are.
        MalformedRequest: `truncate` contradicts it.
    """
    value = message.truncation
    if value != pb.TRUNCATION_UNSPECIFIED and value not in TRUNCATIONS:
        valid = ", ".join(pb.Truncation.Name(known) for known in TRUNCATIONS)  # type: ignore[arg-type]
        raise InvalidInput(f"truncation must be one of {valid}; received {value}", field="truncation")
    return combine_truncation(message.truncate, TRUNCATIONS.get(value))


def count(sequences: TokenInput | TextInput) -> int:
    """How many sequences there are."""
    return len(sequences.token_ids if isinstance(sequences, TokenInput) else sequences.texts)


def _to_tokens(message: pb.TokenInput, max_sequences: int) -> TokenInput:
    refuse_unknown_fields(message, "tokens")

    def optional(tensors: Sequence[pb.Tensor], field: str) -> list[IntArray] | None:
        return to_rows(tensors, field, max_sequences) if tensors else None

    return TokenInput(
        token_ids=to_rows(message.token_ids, "token_ids", max_sequences),
        segment_ids=optional(message.segment_ids, "segment_ids"),
        padding_mask=optional(message.padding_mask, "padding_mask"),
    )


def _to_texts(message: pb.TextInput, max_sequences: int) -> TextInput:
    refuse_unknown_fields(message, "text")
    refuse_too_many(len(message.texts), "text", max_sequences)
    return TextInput(tuple(_to_text(text, f"text[{index}]") for index, text in enumerate(message.texts)))


def _to_text(message: pb.Text, field: str) -> str | tuple[str, str]:
    refuse_unknown_fields(message, field)
    return (message.first, message.second) if message.HasField("second") else message.first
