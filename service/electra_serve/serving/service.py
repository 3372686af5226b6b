"""Transport-independent service: validates requests, submits their sequences and collects the results.

A transport converts its message into an `EncodeRequest`, awaits `InferenceService.encode`, and converts the
`EncodeResult` or the `ServiceError` back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from electra_serve.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotReady,
    Overloaded,
    PayloadTooLarge,
    ServiceError,
    ShuttingDown,
)
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.embedding import engine_outputs, with_embedding
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.request_context import NO_CONTEXT, RequestContext
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.tokenization import TextEncoder
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


class InferenceService:
    """Encodes requests with the models of a registry."""

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

    async def _encode(self, model: ServedModel, request: EncodeRequest) -> EncodeResult:
        if not request.outputs:
            raise InvalidInput("outputs must name at least one output; got none", field="outputs")
        _check_outputs(model, request.outputs)
        now = asyncio.get_running_loop().time
        context, longest_s = request.context, model.max_timeout_s
        timeout_s = context.timeout_s
        deadline = now() + (longest_s if timeout_s is None else min(timeout_s, longest_s))
        with ExitStack() as reservations:
            validated = await self._validated(model, request, deadline, reservations)
            values = _response_values(model, request, validated.encodings)
            if request.transit is not None:
                await request.transit.reserve_response(values)
        rows = await model.batcher.submit(
            validated.encodings,
            engine_outputs(request.outputs, model.embedding),
            client=context.client,
            priority=context.priority,
            timeout_s=max(deadline - now(), 0.0),
            span=context.span,
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

    async def _validated(
        self, model: ServedModel, request: EncodeRequest, deadline: float, reservations: ExitStack
    ) -> Validated:
        """Returns the request's sequences; texts reserve their part of the queue before they are tokenized."""
        context = request.context
        if isinstance(request.input, TokenInput):
            return validate(request.input, model.input_limits, request.truncation)
        if isinstance(model.tokenizer, NoTokenizer):
            reason = model.tokenizer.reason
            raise InvalidInput(f"model {model.name} takes token_ids, not text: {reason}", field="text")
        check_count(len(request.input.texts), model.input_limits, "text")
        with _retry_later(self._texts.work_s):
            reservations.enter_context(model.batcher.reserve(context.client, len(request.input.texts)))
        try:
            async with asyncio.timeout_at(deadline):
                with _retry_later(model.batcher.queued_work_s):
                    return await self._texts.encode(
                        request.input,
                        model.tokenizer,
                        model.input_limits,
                        model.text_limits,
                        request.truncation,
                        client=context.client,
                        priority=context.priority,
                        timeout_s=max(deadline - asyncio.get_running_loop().time(), 0.0),
                    )
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the texts were tokenized") from error


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
    if request.max_values is not None and values > request.max_values:
        raise PayloadTooLarge(
            f"a response must have at most {request.max_values} numbers; got {values}: "
            "request fewer sequences or outputs"
        )
    return values
