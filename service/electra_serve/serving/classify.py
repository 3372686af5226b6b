"""Classifies sequences with the head of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import get_args

from electra_serve.errors import InvalidInput
from electra_serve.presets.heads import HeadKind
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.classification.find import (
    CHARACTERS_PER_VALUE,
    VALUES_PER_ITEM,
    Found,
    characters_of,
    count_values,
    find_all,
)
from electra_serve.serving.classification.plan import OPTIONS, Plan, make_plan
from electra_serve.serving.classification.results import DEFAULT_OPTIONS, ClassifyOptions
from electra_serve.serving.computation import Computation
from electra_serve.serving.model_info import ModelInfos
from electra_serve.serving.request_context import NO_CONTEXT, RequestContext
from electra_serve.serving.response_size import check_values, reserve
from electra_serve.serving.sequences import count_of, part_of
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.tokenization import longest_cut
from electra_serve.serving.transit_budget import Transit
from electra_serve.serving.validation import Validated
from electra_serve.tensors import TextInput, TokenInput, Truncation


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """Sequences to classify with the head of a model; other fields are those of `EncodeRequest`."""

    input: TokenInput | TextInput
    model: str | None = None
    options: ClassifyOptions = DEFAULT_OPTIONS
    truncation: Truncation = Truncation.NONE
    context: RequestContext = NO_CONTEXT
    max_values: int | None = None
    transit: Transit | None = None


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """Labels or spans of each input, in order."""

    model: str
    head: HeadKind
    rows: tuple[Found, ...]
    sequences: int  # computed, windows included
    tokens: int  # unmasked positions of all sequences
    truncated: tuple[bool, ...]  # for each input

    @property
    def items(self) -> int:
        """Labels and spans of all rows."""
        return sum(map(len, self.rows))


async def classify(
    computation: Computation, infos: ModelInfos, model: ServedModel, request: ClassifyRequest
) -> ClassifyResult:
    """Computes labels or spans; see `InferenceService.classify`. Errors name models of `infos`."""
    head = model.head
    if head is None:
        raise _without_head(model, infos)
    longest = model.input_limits.max_sequence_length
    if not isinstance(model.tokenizer, NoTokenizer):
        longest = longest_cut(model.tokenizer, model.input_limits)
    plan = make_plan(head, request.options, request.input, request.truncation, longest)
    validated, rows = await computation.compute(
        model,
        request,
        frozenset({head.output}),
        lambda validated: _classify_values(request, plan, validated),
        plan,
    )
    found = await find_all(computation.runner, plan, request.input, validated, rows)
    _check_characters(request, plan, validated, found)
    windows = validated.windows or (1,) * len(found)
    starts = accumulate(windows, initial=0)
    return ClassifyResult(
        model=model.name,
        head=head.kind,
        rows=tuple(found),
        sequences=len(validated.encodings),
        tokens=sum(encoding.real_tokens for encoding in validated.encodings),
        truncated=tuple(validated.truncated[start] for start, _ in zip(starts, windows, strict=False)),
    )


async def predict(
    computation: Computation, infos: ModelInfos, model: ServedModel, request: ClassifyRequest
) -> ClassifyResult:
    """Computes labels of many inputs, in slices; see `InferenceService.predict`."""
    head = model.head
    if head is None or head.kind != "sequence_classification":
        raise _without_head(model, infos, ("sequence_classification",))
    values = count_of(request.input) * len(head.labels) * (1 + VALUES_PER_ITEM)
    check_values(values, request.max_values, "request fewer inputs")
    await reserve(request.transit, values)

    async def classify_part(part: range, context: RequestContext) -> ClassifyResult:
        inputs = part_of(request.input, part)
        return await classify(computation, infos, model, replace(request, input=inputs, context=context, transit=None))

    results = await computation.in_slices(model, request.input, request.context, classify_part)
    return ClassifyResult(
        model=model.name,
        head=head.kind,
        rows=tuple(row for result in results for row in result.rows),
        sequences=sum(result.sequences for result in results),
        tokens=sum(result.tokens for result in results),
        truncated=tuple(cut for result in results for cut in result.truncated),
    )


def _without_head(model: ServedModel, infos: ModelInfos, kinds: Sequence[str] = get_args(HeadKind)) -> InvalidInput:
    served = [info.name for info in infos() if info.head in kinds]
    wanted = "a head" if len(kinds) > 1 else f"a {kinds[0]} head"
    others = f"models with {wanted} are {', '.join(served)}" if served else "no served model has one"
    return InvalidInput(
        f"classification needs a model with {wanted}; that of {model.name} is {model.loaded.preset.head_name}, and "
        f"{others}",
        field="model",
    )


def _classify_values(request: ClassifyRequest, plan: Plan, validated: Validated) -> int:
    """Estimates the numbers of the response; raises `PayloadTooLarge` for more than `request.max_values`."""
    values = count_values(plan, validated.encodings, len(validated.windows or validated.encodings))
    return check_values(values, request.max_values, _advice(plan))


def _check_characters(request: ClassifyRequest, plan: Plan, validated: Validated, found: Sequence[Found]) -> None:
    """Raises `PayloadTooLarge` if the texts of spans are too long: several may have the same long word."""
    characters = sum(map(characters_of, found))
    values = _classify_values(request, plan, validated) + characters // CHARACTERS_PER_VALUE
    check_values(values, request.max_values, _advice(plan))


def _advice(plan: Plan) -> str:
    fewer = "request fewer sequences, or a lower top_k"
    return fewer if "top_k" in OPTIONS[plan.head.kind] else "request fewer sequences, or shorter texts"
