"""Transport-independent service: validates requests, submits their sequences and collects the results.

A transport converts its message into an `EncodeRequest` or a `ClassifyRequest`, awaits `InferenceService.encode` or
`classify`, and converts the result or the `ServiceError` back.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final, TypeVar, cast, get_args, overload

import numpy as np

from electra_serve.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotReady,
    Overloaded,
    PayloadTooLarge,
    ServiceError,
    ShuttingDown,
)
from electra_serve.presets.heads import HeadKind
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.classification.classify import (
    CHARACTERS_PER_VALUE,
    VALUES_PER_ITEM,
    Found,
    characters_of,
    count_values,
    find_all,
)
from electra_serve.serving.classification.plan import Plan, make_plan
from electra_serve.serving.classification.results import DEFAULT_OPTIONS, ClassifyOptions
from electra_serve.serving.embed import (
    EmbedRequest,
    EmbedResult,
    check_embed,
    choose_prompt,
    finish_vector,
    truncation_of,
    truncation_setting,
    with_prompt,
)
from electra_serve.serving.embedding import SOURCES, engine_outputs, with_embedding
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.request_context import NO_CONTEXT, Deadline, RequestContext
from electra_serve.serving.rerank import (
    RerankRequest,
    RerankResult,
    check_rerank,
    index_of,
    is_cross_encoder,
    long_query,
    no_cross_encoder,
    rank,
    with_field,
)
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.slices import SLICE, cut_slices, in_slices
from electra_serve.serving.tokenization import MIN_CHARACTERS, TextEncoder, check_characters, longest_cut
from electra_serve.serving.tokens import (
    ID_CHARACTERS,
    VALUES_PER_ID,
    VALUES_PER_TOKEN,
    DetokenizeRequest,
    DetokenizeResult,
    TokenizeRequest,
    TokenizeResult,
    check_decodable,
    decode_in_steps,
    special_pieces,
    tokenize_in_steps,
)
from electra_serve.serving.transit_budget import Transit
from electra_serve.serving.validation import Validated, check_count, validate
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

_NO_LIMIT: Final = 2**31 - 1  # ids of a sequence that is only measured
T = TypeVar("T")

TEMPLATE_IDS = 8  # ids around a text that the estimate of its length allows for


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


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """Outputs of a request, with one row for each sequence, in order."""

    model: str
    outputs: Outputs
    rows: tuple[RowOutput, ...]
    tokens: int  # unmasked positions of all sequences
    truncated: tuple[bool, ...]  # for each sequence

    @property
    def values(self) -> int:
        """Numbers in all rows."""
        return sum(row.size(output) for row in self.rows for output in self.outputs)


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


class InferenceService:
    """Encodes and classifies requests with the models of a registry."""

    def __init__(self, registry: ModelRegistry, texts: TextEncoder) -> None:
        self._registry = registry
        self._texts = texts

    @property
    def ready(self) -> bool:
        """True if every configured model is ready and the process is not draining."""
        return self._registry.ready

    def label(self, model: str | None) -> str:
        """Returns the `model` label for metrics: a configured name, or "" for an unknown one."""
        return self._registry.label(model)

    def models(self) -> tuple[ModelInfo, ...]:
        """Describes every model, in the order of the settings."""
        return self._registry.infos()

    def model(self, name: str) -> ModelInfo:
        """Describes one model; raises `ModelNotFound`."""
        return self._registry.info(name)

    def ensure_capacity(self, client: str, sequences: int = 1, tokens: int = 1) -> None:
        """Rejects a request before it is read, if no model has capacity for it.

        Raises:
            Overloaded: Every queue is full.
            ModelNotReady: Every engine has failed.
            ShuttingDown: Nothing new is admitted.
        """
        rejection: ServiceError | None = None
        for batcher in self._registry.batchers:
            try:
                batcher.ensure_capacity(client, sequences, tokens)
            except (Overloaded, ShuttingDown, ModelNotReady) as error:
                rejection = error
            else:
                return
        if rejection is not None:
            raise rejection

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """Computes the requested outputs; cancellation removes waiting sequences from the queue.

        Raises:
            ModelNotFound: The name is unknown, or missing although several models are served.
            ModelNotReady: The model is loading, unloading or failed.
            InvalidInput: The ids, texts or outputs are invalid for the model.
            PayloadTooLarge: There are too many sequences, or the response would be too large.
            Overloaded: The queue or the client's share of it is full, or the wait would exceed the deadline.
            ShuttingDown: Nothing new is admitted.
            DeadlineExceeded: The deadline passed first.
            EngineFailure: The engine failed on one of the sequences.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._encode(model, request)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Computes one vector of each input, in slices; raises as `encode`.

        Raises:
            InvalidInput: The model has no such prompt or length of vectors, or takes no ids.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._embed(model, request)

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """Computes labels, labeled spans or answer spans, as the head of the model says; raises as `encode`.

        Raises:
            InvalidInput: The model has no head, or an option or input does not fit it.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._classify(model, request)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Scores documents for a query with a cross-encoder, in slices; raises as `encode`.

        Raises:
            InvalidInput: The model is no cross-encoder, or the query leaves no room for a document.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._rerank(model, request)

    async def predict(self, request: ClassifyRequest) -> ClassifyResult:
        """Computes labels of many inputs, in slices; raises as `classify`.

        Raises:
            InvalidInput: The model has no head that labels sequences.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._predict(model, request)

    async def tokenize(self, request: TokenizeRequest) -> TokenizeResult:
        """Finds the tokens of texts, and their places.

        Raises:
            ModelNotFound: The name is unknown, or missing although several models are served.
            ModelNotReady: The model is loading, unloading or failed.
            InvalidInput: A text is too long, or the model has no tokenizer or no such prompt.
            PayloadTooLarge: The response would be too large.
            Overloaded: The tokenizer's queue is full, or the wait would exceed the deadline.
            DeadlineExceeded: The deadline passed first.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._tokenize(model, request)

    async def detokenize(self, request: DetokenizeRequest) -> DetokenizeResult:
        """Turns ids into texts; raises as `tokenize`."""
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._detokenize(model, request)

    def truncates(self, model: str | None) -> bool:
        """Returns True if a model truncates long texts of other servers' APIs; raises as `encode`."""
        return truncation_setting(self._registry.ready_model(model).settings.embedding) is not Truncation.NONE

    async def _encode(
        self, model: ServedModel, request: EncodeRequest, check: Callable[[int], int] = int
    ) -> EncodeResult:
        """Encodes a request; `check` gets the numbers of the response before they are computed."""
        if not request.outputs:
            raise InvalidInput("outputs must name at least one output; got none", field="outputs")
        _check_outputs(model, request.outputs)
        validated, rows = await self._compute(
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
            tokens=sum(encoding.real_tokens for encoding in validated.encodings),
            truncated=validated.truncated,
        )

    async def _embed(self, model: ServedModel, request: EmbedRequest) -> EmbedResult:
        settings, embedding = model.settings.embedding, model.embedding
        check_embed(request, model.width(Output.EMBEDDING), settings)
        prompt = choose_prompt(embedding, request.prompt_name, request.input_type)
        sequences = request.input
        if isinstance(sequences, TextInput):
            sequences = TextInput(with_prompt(sequences.texts, prompt))
        source = Output.SEQUENCE if request.per_token else SOURCES[embedding.pooling]
        await _reserve_vectors(model, replace(request, input=sequences))
        results = await self._encode_in_slices(
            model,
            EncodeRequest(
                sequences,
                outputs=frozenset({source}),
                truncation=truncation_of(request, settings),
                context=request.context,
                max_values=request.max_values,
            ),
        )
        rows = [row.get(source) for result in results for row in result.rows]
        return EmbedResult(
            model=model.name,
            vectors=tuple(rows if request.per_token else (finish_vector(row, request) for row in rows)),
            tokens=sum(result.tokens for result in results),
            truncated=tuple(cut for result in results for cut in result.truncated),
        )

    async def _rerank(self, model: ServedModel, request: RerankRequest) -> RerankResult:
        info = self._registry.info(model.name)
        if not is_cross_encoder(info):
            raise no_cross_encoder(info, self._registry.infos())
        check_rerank(request)
        _check_values(request.values, request.max_values, "request fewer documents")
        if request.transit is not None:
            await request.transit.reserve_response(request.values)
        pairs = EncodeRequest(
            request.input,
            outputs=frozenset({Output.LOGITS}),
            truncation=request.truncation,
            context=request.context,
        )
        try:
            results = await self._encode_in_slices(model, pairs)
        except (InvalidInput, PayloadTooLarge) as error:
            await self._check_query(model, request, index_of(error))
            raise with_field(error, request) from error
        logits = np.concatenate([row.get(Output.LOGITS) for result in results for row in result.rows])
        scores, order = rank(logits, request)
        return RerankResult(
            model=model.name,
            scores=scores,
            order=order,
            tokens=sum(result.tokens for result in results),
            truncated=tuple(cut for result in results for cut in result.truncated),
        )

    async def _check_query(self, model: ServedModel, request: RerankRequest, index: int | None) -> None:
        """Raises `InvalidInput` if the query of a rejected pair is at fault: invalid, or too long for any document."""
        if index is None or isinstance(model.tokenizer, NoTokenizer):
            return
        try:
            async with asyncio.timeout(request.context.timeout_s or model.max_timeout_s):
                alone = await self._texts.encode(
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

    async def _encode_in_slices(self, model: ServedModel, request: EncodeRequest) -> list[EncodeResult]:
        """Encodes the sequences of a request in slices; their numbers together are at most `max_values`."""
        values: dict[int, int] = {}  # by the start of a slice, since one may be submitted again

        async def encode(part: range, context: RequestContext) -> EncodeResult:
            def check(count: int) -> int:
                values[part.start] = count
                _check_values(sum(values.values()), request.max_values, "request fewer inputs")
                return count

            sequences = _part(request.input, part)
            return await self._encode(model, replace(request, input=sequences, context=context), check)

        return await self._in_slices(model, request.input, request.context, encode)

    async def _in_slices(
        self,
        model: ServedModel,
        sequences: TextInput | TokenInput,
        context: RequestContext,
        compute: Callable[[range, RequestContext], Awaitable[T]],
    ) -> list[T]:
        """Computes slices of a request, all within one deadline; errors name the sequence's index."""
        timeout_s = context.timeout_s
        seconds = model.max_timeout_s if timeout_s is None else min(timeout_s, model.max_timeout_s)
        deadline = Deadline(time.monotonic() + seconds)
        limited = replace(context, deadline=deadline)

        async def compute_part(part: range) -> T:
            try:
                return await compute(part, limited)
            except InvalidInput as error:
                raise InvalidInput(error.message, field=_shifted(error.field, part.start)) from error

        slices = cut_slices(
            _sizes(sequences),
            most_items=min(SLICE, model.input_limits.max_sequences),
            most_size=model.text_limits.max_request_characters,
        )
        return await in_slices(slices, compute_part, deadline)

    async def _predict(self, model: ServedModel, request: ClassifyRequest) -> ClassifyResult:
        head = model.head
        if head is None or head.kind != "sequence_classification":
            raise self._without_head(model, ("sequence_classification",))
        values = _count(request.input) * len(head.labels) * (1 + VALUES_PER_ITEM)
        _check_values(values, request.max_values, "request fewer inputs")
        if request.transit is not None:
            await request.transit.reserve_response(values)

        async def classify(part: range, context: RequestContext) -> ClassifyResult:
            inputs = _part(request.input, part)
            return await self._classify(model, replace(request, input=inputs, context=context, transit=None))

        results = await self._in_slices(model, request.input, request.context, classify)
        return ClassifyResult(
            model=model.name,
            head=head.kind,
            rows=tuple(row for result in results for row in result.rows),
            sequences=sum(result.sequences for result in results),
            tokens=sum(result.tokens for result in results),
            truncated=tuple(cut for result in results for cut in result.truncated),
        )

    async def _tokenize(self, model: ServedModel, request: TokenizeRequest) -> TokenizeResult:
        tokenizer = _tokenizer_of(model, "text")
        prompt = choose_prompt(model.embedding, request.prompt_name, None)
        texts = TextInput(with_prompt(request.input.texts, prompt))
        most = VALUES_PER_TOKEN * sum(size + TEMPLATE_IDS for size in _sizes(texts))
        if request.transit is not None:
            await request.transit.reserve_response(_least(most, request.max_values))
        counts: dict[int, int] = {}

        async def tokenize(part: range, context: RequestContext) -> TokenizeResult:
            inputs = _part(texts, part)
            check_characters(inputs, model.text_limits)
            steps = tokenize_in_steps(
                cast("Sequence[str]", inputs.texts), tokenizer, template=request.add_special_tokens
            )
            characters = sum(max(size, MIN_CHARACTERS) for size in _sizes(inputs))
            rows = await self._on_tokenizer(model, context, steps, characters)
            result = TokenizeResult(model.name, tuple(rows), special_pieces(rows, tokenizer))
            counts[part.start] = result.tokens
            values = VALUES_PER_TOKEN * sum(counts.values())
            _check_values(values, request.max_values, "request fewer texts")
            return result

        results = await self._in_slices(model, texts, request.context, tokenize)
        pieces = {id_: piece for result in results for id_, piece in result.pieces.items()}
        return TokenizeResult(model.name, tuple(row for result in results for row in result.rows), pieces)

    async def _detokenize(self, model: ServedModel, request: DetokenizeRequest) -> DetokenizeResult:
        tokenizer = _tokenizer_of(model, "token_ids")
        check_decodable(request.input, model.text_limits.max_characters)
        tokens = sum(_sizes(request.input))
        _check_values(VALUES_PER_ID * tokens, request.max_values, "request fewer ids")
        if request.transit is not None:
            await request.transit.reserve_response(VALUES_PER_ID * tokens)

        async def decode(part: range, context: RequestContext) -> list[str]:
            inputs = _part(request.input, part)
            steps = decode_in_steps(inputs, tokenizer, skip_special=request.skip_special_tokens)
            characters = sum(max(ID_CHARACTERS * size, MIN_CHARACTERS) for size in _sizes(inputs))
            return await self._on_tokenizer(model, context, steps, characters)

        results = await self._in_slices(model, request.input, request.context, decode)
        return DetokenizeResult(model.name, tuple(text for texts in results for text in texts), tokens)

    async def _on_tokenizer(self, model: ServedModel, context: RequestContext, steps: Steps[T], characters: int) -> T:
        """Runs steps in the tokenizer's queue; raises `Overloaded` or `DeadlineExceeded`."""
        timeout_s = model.max_timeout_s if context.timeout_s is None else context.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._texts.run(
                    steps, characters, client=context.client, priority=context.priority, timeout_s=timeout_s
                )
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the texts were tokenized") from error

    async def _classify(self, model: ServedModel, request: ClassifyRequest) -> ClassifyResult:
        head = model.head
        if head is None:
            raise self._without_head(model)
        longest = model.input_limits.max_sequence_length
        if not isinstance(model.tokenizer, NoTokenizer):
            longest = longest_cut(model.tokenizer, model.input_limits)
        plan = make_plan(head, request.options, request.input, request.truncation, longest)
        validated, rows = await self._compute(
            model,
            request,
            frozenset({head.output}),
            lambda validated: _classify_values(request, plan, validated),
            plan,
        )
        found = await find_all(plan, request.input, validated, rows)
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

    def _without_head(self, model: ServedModel, kinds: Sequence[str] = get_args(HeadKind)) -> InvalidInput:
        served = [info.name for info in self._registry.infos() if info.head in kinds]
        wanted = "a head" if len(kinds) > 1 else f"a {kinds[0]} head"
        others = f"models with {wanted} are {', '.join(served)}" if served else "no served model has one"
        return InvalidInput(
            f"classification needs a model with {wanted}; that of {model.name} is {model.loaded.preset.head_name}, and "
            f"{others}",
            field="model",
        )

    async def _compute(
        self,
        model: ServedModel,
        request: EncodeRequest | ClassifyRequest,
        outputs: Outputs,
        measure: Callable[[Validated], int],
        plan: Plan | None = None,
    ) -> tuple[Validated, Sequence[RowOutput]]:
        """Validates the sequences, reserves bytes for the numbers that `measure` counts, and computes the outputs."""
        now = asyncio.get_running_loop().time
        context, longest_s = request.context, model.max_timeout_s
        timeout_s = context.timeout_s
        deadline = now() + (longest_s if timeout_s is None else min(timeout_s, longest_s))
        with ExitStack() as reservations:
            validated = await self._validated(model, request, deadline, reservations, plan)
            values = measure(validated)
            if request.transit is not None:
                await request.transit.reserve_response(values)
        rows = await model.batcher.submit(
            validated.encodings,
            outputs,
            client=context.client,
            priority=context.priority,
            timeout_s=max(deadline - now(), 0.0),
            span=context.span,
        )
        return validated, rows

    async def _validated(
        self,
        model: ServedModel,
        request: EncodeRequest | ClassifyRequest,
        deadline: float,
        reservations: ExitStack,
        plan: Plan | None,
    ) -> Validated:
        """Returns the request's sequences; texts reserve their part of the queue before they are tokenized."""
        context = request.context
        if isinstance(request.input, TokenInput):
            return validate(request.input, model.input_limits, request.truncation)
        tokenizer = _tokenizer_of(model, "text")
        check_count(len(request.input.texts), model.input_limits, "text")
        with _retry_later(self._texts.work_s):
            reservations.enter_context(model.batcher.reserve(context.client, len(request.input.texts)))
        try:
            async with asyncio.timeout_at(deadline):
                with _retry_later(model.batcher.queued_work_s):
                    return await self._texts.encode(
                        request.input,
                        tokenizer,
                        model.input_limits,
                        model.text_limits,
                        request.truncation,
                        stride=None if plan is None else plan.stride,
                        aligned=plan is not None and plan.aligned,
                        client=context.client,
                        priority=context.priority,
                        timeout_s=max(deadline - asyncio.get_running_loop().time(), 0.0),
                    )
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the texts were tokenized") from error


def _count(sequences: TextInput | TokenInput) -> int:
    return len(sequences.texts if isinstance(sequences, TextInput) else sequences.token_ids)


def _sizes(sequences: TextInput | TokenInput) -> list[int]:
    """Returns the characters or ids of each sequence."""
    if isinstance(sequences, TokenInput):
        return list(map(len, sequences.token_ids))
    return [len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in sequences.texts]


@overload
def _part(sequences: TextInput, part: range) -> TextInput: ...


@overload
def _part(sequences: TokenInput, part: range) -> TokenInput: ...


def _part(sequences: TextInput | TokenInput, part: range) -> TextInput | TokenInput:
    kept = slice(part.start, part.stop)
    if isinstance(sequences, TextInput):
        return TextInput(sequences.texts[kept])
    return TokenInput(
        sequences.token_ids[kept],
        None if sequences.segment_ids is None else sequences.segment_ids[kept],
        None if sequences.padding_mask is None else sequences.padding_mask[kept],
    )


def _tokenizer_of(model: ServedModel, field: str) -> Tokenizer:
    """Returns the tokenizer of a model; raises `InvalidInput` if it has none."""
    if isinstance(model.tokenizer, NoTokenizer):
        reason = model.tokenizer.reason
        raise InvalidInput(f"model {model.name} takes token_ids, not text: {reason}", field=field)
    return model.tokenizer


async def _reserve_vectors(model: ServedModel, request: EmbedRequest) -> None:
    """Reserves bytes for the response; raises `PayloadTooLarge` if its size is known and too large."""
    if request.per_token:
        longest = model.input_limits.max_sequence_length
        positions = sum(min(size + TEMPLATE_IDS, longest) for size in _sizes(request.input))
        values = _least(positions * model.width(Output.SEQUENCE), request.max_values)
    else:
        values = _count(request.input) * (request.dimensions or model.width(Output.EMBEDDING))
        _check_values(values, request.max_values, "request fewer inputs")
    if request.transit is not None:
        await request.transit.reserve_response(values)


def _least(values: int, most: int | None) -> int:
    return values if most is None else min(values, most)


def _shifted(field: str | None, start: int) -> str | None:
    """Adds `start` to the index of a field such as `text[3]`."""
    return None if field is None else re.sub(r"(?<=\[)\d+", lambda index: str(int(index[0]) + start), field, count=1)


@contextmanager
def _retry_later(seconds: float) -> Iterator[None]:
    """Adds `seconds` to the `retry_after_s` of rejections: texts wait for the tokenizer, then for the engine."""
    try:
        yield
    except Overloaded as error:
        raise Overloaded(
            error.message, field=error.field, retry_after_s=(error.retry_after_s or 0.0) + seconds
        ) from error


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
    positions = sum(map(len, encodings))
    values = sum(
        (positions if output in POSITION_OUTPUTS else len(encodings)) * model.width(output)
        for output in request.outputs
    )
    return _check_values(values, request.max_values, "request fewer sequences or outputs")


def _classify_values(request: ClassifyRequest, plan: Plan, validated: Validated) -> int:
    """Estimates the numbers of the response; raises `PayloadTooLarge` for more than `request.max_values`."""
    values = count_values(plan, validated.encodings, len(validated.windows or validated.encodings))
    return _check_values(values, request.max_values, "request fewer sequences, or a lower top_k")


def _check_characters(request: ClassifyRequest, plan: Plan, validated: Validated, found: Sequence[Found]) -> None:
    """Raises `PayloadTooLarge` if the texts of spans are too long: several may have the same long word."""
    characters = sum(map(characters_of, found))
    values = _classify_values(request, plan, validated) + characters // CHARACTERS_PER_VALUE
    _check_values(values, request.max_values, "request fewer sequences, or a lower top_k")


def _check_values(values: int, most: int | None, advice: str) -> int:
    if most is not None and values > most:
        raise PayloadTooLarge(f"a response must have at most {most} numbers; got {values}: {advice}")
    return values
