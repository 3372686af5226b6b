"""Computes a request's sequences: tokenizes, validates, queues, and collects the outputs of the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from electra_serve.errors import DeadlineExceeded, InvalidInput, Overloaded
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.classification.plan import Plan
from electra_serve.serving.classification.step_runner import StepRunner
from electra_serve.serving.request_context import Deadline, RequestContext
from electra_serve.serving.response_size import reserve
from electra_serve.serving.sequences import shifted_field, sizes_of
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.slices import SLICE, SLICES_AT_ONCE, cut_slices, in_slices
from electra_serve.serving.tokenization import TextEncoder
from electra_serve.serving.transit_budget import Transit
from electra_serve.serving.validation import Validated, check_count, validate
from electra_serve.tensors import Outputs, RowOutput, TextInput, TokenInput, Truncation

T = TypeVar("T")


class SequenceRequest(Protocol):
    """Part of a request that determines its sequences."""

    @property
    def input(self) -> TokenInput | TextInput:
        """Ids or texts."""

    @property
    def truncation(self) -> Truncation:
        """Rule for long sequences."""

    @property
    def context(self) -> RequestContext:
        """Client, priority, deadline and span."""

    @property
    def transit(self) -> Transit | None:
        """Share of the transit budget."""


class Computation:
    """Computes sequences with a model; `texts` tokenizes."""

    def __init__(self, texts: TextEncoder) -> None:
        self.texts = texts
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by client
        self.runner = StepRunner()

    async def compute(
        self,
        model: ServedModel,
        request: SequenceRequest,
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
            await reserve(request.transit, measure(validated))
        rows = await model.batcher.submit(
            validated.encodings,
            outputs,
            client=context.client,
            priority=context.priority,
            timeout_s=max(deadline - now(), 0.0),
            span=context.span,
            admitted=context.admitted or isinstance(request.input, TextInput),  # texts have reserved their place
        )
        return validated, rows

    async def in_slices(
        self,
        model: ServedModel,
        sequences: TextInput | TokenInput,
        context: RequestContext,
        compute: Callable[[range, RequestContext], Awaitable[T]],
    ) -> list[T]:
        """Computes slices of a request, all within one deadline; errors name the sequence's index.

        The slices of a client take turns, so that its small requests do not wait for all of its large ones.
        """
        model.batcher.ensure_open()
        turns = self._turns.setdefault(context.client, asyncio.Semaphore(SLICES_AT_ONCE))
        timeout_s = context.timeout_s
        seconds = model.max_timeout_s if timeout_s is None else min(timeout_s, model.max_timeout_s)
        deadline = Deadline(time.monotonic() + seconds)
        limited = replace(context, deadline=deadline, admitted=True)

        async def compute_part(part: range) -> T:
            try:
                async with turns:
                    if not deadline.remaining_s():
                        raise Overloaded(
                            "the deadline passed before all parts of the request were admitted",
                            retry_after_s=model.batcher.queued_work_s,
                        )
                    return await compute(part, limited)
            except InvalidInput as error:
                raise InvalidInput(error.message, field=shifted_field(error.field, part.start)) from error

        slices = cut_slices(
            sizes_of(sequences),
            most_items=min(SLICE, model.input_limits.max_sequences),
            most_size=model.text_limits.max_request_characters,
        )
        return await in_slices(slices, compute_part, deadline)

    async def on_tokenizer(self, model: ServedModel, context: RequestContext, steps: Steps[T], characters: int) -> T:
        """Runs steps in the tokenizer's queue; raises `Overloaded` or `DeadlineExceeded`."""
        timeout_s = model.max_timeout_s if context.timeout_s is None else context.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self.texts.run(
                    steps, characters, client=context.client, priority=context.priority, timeout_s=timeout_s
                )
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the texts were tokenized") from error

    async def _validated(
        self,
        model: ServedModel,
        request: SequenceRequest,
        deadline: float,
        reservations: ExitStack,
        plan: Plan | None,
    ) -> Validated:
        """Returns the request's sequences; texts reserve their part of the queue before they are tokenized."""
        context = request.context
        if isinstance(request.input, TokenInput):
            return validate(request.input, model.input_limits, request.truncation)
        tokenizer = tokenizer_of(model, "text")
        check_count(len(request.input.texts), model.input_limits, "text")
        with _retry_later(self.texts.work_s):
            count = len(request.input.texts)
            reservations.enter_context(model.batcher.reserve(context.client, count, admitted=context.admitted))
        try:
            async with asyncio.timeout_at(deadline):
                with _retry_later(model.batcher.queued_work_s):
                    return await self.texts.encode(
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


def tokenizer_of(model: ServedModel, field: str) -> Tokenizer:
    """Returns the tokenizer of a model; raises `InvalidInput` if it has none."""
    if isinstance(model.tokenizer, NoTokenizer):
        reason = model.tokenizer.reason
        raise InvalidInput(f"model {model.name} takes token_ids, not text: {reason}", field=field)
    return model.tokenizer


@contextmanager
def _retry_later(seconds: float) -> Iterator[None]:
    """Adds `seconds` to the `retry_after_s` of rejections: texts wait for the tokenizer, then for the engine."""
    try:
        yield
    except Overloaded as error:
        raise Overloaded(
            error.message, field=error.field, retry_after_s=(error.retry_after_s or 0.0) + seconds
        ) from error
