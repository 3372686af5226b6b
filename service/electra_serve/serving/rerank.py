"""Rerank requests: pairs of a query and a document, scored by a head with one label."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.classification.scores import sigmoid
from electra_serve.serving.computation import Computation
from electra_serve.serving.encode import EncodeRequest, encode_in_slices
from electra_serve.serving.model_info import ModelInfo, ModelInfos
from electra_serve.serving.request_context import NO_CONTEXT, RequestContext
from electra_serve.serving.response_size import check_values, reserve
from electra_serve.serving.sequences import renamed_field
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.tokenization import longest_cut
from electra_serve.serving.transit_budget import Transit
from electra_serve.tensors import Float32Array, Output, TextInput, Truncation

VALUES_PER_DOCUMENT: Final = 8
"""Numbers that a document counts as in the size of a response."""
CHARACTERS_PER_VALUE: Final = 4
_NO_LIMIT: Final = 2**31 - 1  # ids of a sequence that is only measured
_INDEX: Final = re.compile(r"text\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Documents to score; `model` may be None if only one is served.

    Attributes:
        query: The first text of each pair.
        documents: The second ones.
        queries: A query for each document, instead of `query`.
        top_n: Most documents in `RerankResult.order`; None for all.
        raw_scores: Logits instead of their sigmoid.
        truncation: Rule for pairs over the model's limit.
        returns_documents: True if the response repeats them, which counts in its size.
        fields: Names of query and documents in errors.
    """

    query: str
    documents: Sequence[str]
    queries: Sequence[str] | None = None
    model: str | None = None
    top_n: int | None = None
    raw_scores: bool = False
    truncation: Truncation = Truncation.ONLY_SECOND
    returns_documents: bool = False
    fields: tuple[str, str] = ("query", "documents")
    context: RequestContext = NO_CONTEXT
    max_values: int | None = None  # most numbers of the response
    transit: Transit | None = None  # share of the transit budget

    @property
    def input(self) -> TextInput:
        """The pairs."""
        queries = [self.query] * len(self.documents) if self.queries is None else self.queries
        return TextInput(tuple(zip(queries, self.documents, strict=True)))

    def query_of(self, index: int) -> str:
        """Returns the query of a pair."""
        return self.query if self.queries is None else self.queries[index]

    def query_field(self, index: int) -> str:
        """Returns the name of a pair's query in errors."""
        return self.fields[0] if self.queries is None else f"{self.fields[0]}[{index}]"

    @property
    def values(self) -> int:
        """Approximate numbers of the response."""
        values = VALUES_PER_DOCUMENT * len(self.documents)
        if self.returns_documents:
            values += sum(map(len, self.documents)) // CHARACTERS_PER_VALUE
        return values


@dataclass(frozen=True, slots=True, eq=False)
class RerankResult:
    """Scores of a request's documents."""

    model: str
    scores: Float32Array  # (D,), in the order of the documents
    order: tuple[int, ...]  # indices of the best documents, the best first
    tokens: int  # unmasked positions of all pairs
    truncated: tuple[bool, ...]  # for each document


def is_cross_encoder(head: str | None, labels: Sequence[str]) -> bool:
    """Returns True for the kind and the labels of a head that scores pairs.

    Example:
        >>> is_cross_encoder("sequence_classification", ("relevance",)), is_cross_encoder(None, ())
        (True, False)
    """
    return head == "sequence_classification" and len(labels) == 1


def no_cross_encoder(name: str, infos: Sequence[ModelInfo]) -> InvalidInput:
    """Returns the error for a model that scores no pairs; it names those that do."""
    model = next(info for info in infos if info.name == name)
    names = [info.name for info in infos if is_cross_encoder(info.head, info.labels)]
    served = f"served cross-encoders are {', '.join(names)}" if names else "no served model is a cross-encoder"
    labels = f" with {len(model.labels)} labels" if model.labels else ""
    return InvalidInput(
        f"reranking needs a cross-encoder, whose sequence_classification head has one label; the head of {model.name} "
        f"is {model.head or 'none'}{labels}, and {served}",
        field="model",
    )


def check_rerank(request: RerankRequest) -> None:
    """Raises `InvalidInput` if there are no documents, or `top_n` is below 1."""
    if not request.documents:
        field = request.fields[1]
        raise InvalidInput(f"{field} must have at least one text; got none", field=field)
    if request.top_n is not None and request.top_n < 1:
        raise InvalidInput(f"top_n must be at least 1; got {request.top_n}", field="top_n")


def rank(logits: Float32Array, request: RerankRequest) -> tuple[Float32Array, tuple[int, ...]]:
    """Returns the scores of (D,) logits, and the indices of the best ones.

    The order is that of the logits, since large ones have the same sigmoid.

    Example:
        >>> rank(np.array([0, 40, 50], np.float32), RerankRequest("q", ["a", "b", "c"], top_n=2))
        (array([0.5, 1. , 1. ], dtype=float32), (2, 1))
    """
    order = np.argsort(-logits, kind="stable")[: request.top_n]
    return logits if request.raw_scores else sigmoid(logits), tuple(order.tolist())


def index_of(error: InvalidInput | PayloadTooLarge) -> int | None:
    """Returns the index of the pair that an error names."""
    found = _INDEX.fullmatch(error.field or "")
    return None if found is None else int(found[1])


def with_field(error: InvalidInput | PayloadTooLarge, request: RerankRequest) -> InvalidInput | PayloadTooLarge:
    """Returns an error of the pairs as one of the documents.

    Example:
        >>> with_field(InvalidInput("too long", field="text[3]"), RerankRequest("q", ["a"])).field
        'documents[3]'
    """
    return type(error)(error.message, field=renamed_field(error.field, request.fields[1]))


def long_query(request: RerankRequest, index: int, longest: int, length: int) -> InvalidInput:
    """Returns the error for a query that leaves no room for a document."""
    return InvalidInput(
        f"{request.fields[0]} must have fewer than {longest} ids, special ones included, to leave room for a document; "
        f"got {length}",
        field=request.query_field(index),
    )


async def rerank(
    computation: Computation, infos: ModelInfos, model: ServedModel, request: RerankRequest
) -> RerankResult:
    """Scores documents, in slices; see `InferenceService.rerank`."""
    if model.head is None or not is_cross_encoder(model.head.kind, model.head.labels):
        raise no_cross_encoder(model.name, infos())
    check_rerank(request)
    check_values(request.values, request.max_values, "request fewer documents")
    await reserve(request.transit, request.values)
    pairs = EncodeRequest(
        request.input,
        outputs=frozenset({Output.LOGITS}),
        truncation=request.truncation,
        context=request.context,
    )
    try:
        result = await encode_in_slices(computation, model, pairs)
    except (InvalidInput, PayloadTooLarge) as error:
        await _check_query(computation, model, request, index_of(error))
        raise with_field(error, request) from error
    logits = np.concatenate([row.get(Output.LOGITS) for row in result.rows])
    scores, order = rank(logits, request)
    return RerankResult(
        model=model.name,
        scores=scores,
        order=order,
        tokens=result.tokens,
        truncated=result.truncated,
    )


async def _check_query(computation: Computation, model: ServedModel, request: RerankRequest, index: int | None) -> None:
    """Raises `InvalidInput` if the query of a rejected pair is at fault: invalid, or too long for any document."""
    if index is None or isinstance(model.tokenizer, NoTokenizer):
        return
    try:
        async with asyncio.timeout(request.context.timeout_s or model.max_timeout_s):
            alone = await computation.texts.encode(
                TextInput(((request.query_of(index), ""),)),
                model.tokenizer,
                replace(model.input_limits, max_sequence_length=_NO_LIMIT),
                model.text_limits,
                client=request.context.client,
                priority=request.context.priority,
            )
    except TimeoutError:
        return
    except (InvalidInput, PayloadTooLarge) as error:
        raise type(error)(error.message, field=request.query_field(index)) from error
    length, longest = len(alone.encodings[0]), longest_cut(model.tokenizer, model.input_limits)
    if length >= longest:
        raise long_query(request, index, longest, length)
