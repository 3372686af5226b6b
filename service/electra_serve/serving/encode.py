"""Encodes sequences: the outputs of a model for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from electra_serve.errors import InvalidInput
from electra_serve.serving.computation import Computation
from electra_serve.serving.embedding import engine_outputs, with_embedding
from electra_serve.serving.request_context import NO_CONTEXT, RequestContext
from electra_serve.serving.response_size import check_values
from electra_serve.serving.sequences import part_of
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.transit_budget import Transit
from electra_serve.tensors import (
    DEFAULT_OUTPUTS,
    POSITION_OUTPUTS,
    Encoding,
    Output,
    Outputs,
    RowOutput,
    TextInput,
    TokenInput,
    Truncation,
)


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """Sequences to encode; `outputs` has at least one, and `model` may be None if only one is served."""

    input: TokenInput | TextInput
    model: str | None = None
    outputs: Outputs = DEFAULT_OUTPUTS
    truncation: Truncation = Truncation.NONE
    context: RequestContext = NO_CONTEXT
    max_values: int | None = None  # most numbers of the response
    transit: Transit | None = None  # share of the transit budget
    rectangular: bool = False  # True if the response pads sequences to the longest


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """Outputs of a request, with one row for each sequence, in order."""

    model: str
    outputs: Outputs
    rows: tuple[RowOutput, ...]
    row_tokens: tuple[int, ...]  # unmasked positions of each sequence
    truncated: tuple[bool, ...]  # for each sequence

    @property
    def tokens(self) -> int:
        """Unmasked positions of all sequences."""
        return sum(self.row_tokens)

    @property
    def values(self) -> int:
        """Numbers in all rows."""
        return sum(row.size(output) for row in self.rows for output in self.outputs)


async def encode(
    computation: Computation, model: ServedModel, request: EncodeRequest, check: Callable[[int], int] = int
) -> EncodeResult:
    """Encodes a request; `check` gets the numbers of the response before they are computed."""
    if not request.outputs:
        raise InvalidInput("outputs must name at least one output; got none", field="outputs")
    _check_outputs(model, request.outputs)
    validated, rows = await computation.compute(
        model,
        request,
        engine_outputs(request.outputs, model.embedding),
        lambda validated: check(_response_values(model, request, validated.encodings)),
    )
    if Output.EMBEDDING in request.outputs:
        rows = [with_embedding(row, model.embedding) for row in rows]
    return EncodeResult(
        model=model.name,
        outputs=request.outputs,
        rows=tuple(rows),
        row_tokens=tuple(encoding.real_tokens for encoding in validated.encodings),
        truncated=validated.truncated,
    )


async def encode_in_slices(computation: Computation, model: ServedModel, request: EncodeRequest) -> EncodeResult:
    """Encodes the sequences of a request in slices; their numbers together are at most `max_values`."""
    values: dict[int, int] = {}  # by the start of a slice, since one may be submitted again

    async def encode_part(part: range, context: RequestContext) -> EncodeResult:
        def check(count: int) -> int:
            values[part.start] = count
            check_values(sum(values.values()), request.max_values, "request fewer inputs")
            return count

        sequences = part_of(request.input, part)
        return await encode(computation, model, replace(request, input=sequences, context=context), check)

    results = await computation.in_slices(model, request.input, request.context, encode_part)
    return EncodeResult(
        model=model.name,
        outputs=request.outputs,
        rows=tuple(row for result in results for row in result.rows),
        row_tokens=tuple(tokens for result in results for tokens in result.row_tokens),
        truncated=tuple(cut for result in results for cut in result.truncated),
    )


def _check_outputs(model: ServedModel, outputs: Outputs) -> None:
    """Raises `InvalidInput` for an output that the model does not have."""
    missing = [output.value for output in Output if output in outputs - model.outputs]
    if missing:
        served = ", ".join(output.value for output in Output if output in model.outputs)
        raise InvalidInput(
            f"outputs of model {model.name}, whose head is {model.loaded.preset.head_name}, must be among {served}; "
            f"got {missing[0]}",
            field="outputs",
        )


def _response_values(model: ServedModel, request: EncodeRequest, encodings: Sequence[Encoding]) -> int:
    """Counts the numbers of the response; raises `PayloadTooLarge` for more than `request.max_values`."""
    lengths = [len(encoding) for encoding in encodings]
    positions = max(lengths) * len(lengths) if request.rectangular else sum(lengths)
    values = sum(
        (positions if output in POSITION_OUTPUTS else len(encodings)) * model.width(output)
        for output in request.outputs
    )
    return check_values(values, request.max_values, "request fewer sequences or outputs")
