"""Classification in the service: limits of its response, windows, and the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import structlog

from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, TokenizerConfig
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.server.models import build_manager
from electra_serve.serving.classification import find as classification
from electra_serve.serving.classification import step_runner
from electra_serve.serving.classification.results import ClassifyOptions, Label, Span
from electra_serve.serving.classify import ClassifyRequest
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.service import InferenceService
from electra_serve.serving.transit_budget import Transit
from electra_serve.settings.schema import LimitSettings, ModelSettings, Settings
from electra_serve.tensors import Aggregation, TextInput, TokenInput, Truncation
from tests.fakes import SHORT_SHAPES, FakeEngine, loaded_model, text_encoder, transit_budget

LABELS, TAGS, QUESTIONS = "labels", "tags", "questions"
HEADS = {
    LABELS: HeadConfig("sequence_classification", ("a", "b", "c"), "softmax"),
    TAGS: HeadConfig("token_classification", ("O", "x"), "softmax"),
    QUESTIONS: HeadConfig("question_answering", ("start", "end"), "softmax"),
}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
ITEM = classification.VALUES_PER_ITEM
HALF = step_runner.STEP_WORK // 2


def load(name: str) -> LoadedModel:
    engine = FakeEngine(SHORT_SHAPES, HEADS[name])
    loaded = loaded_model(engine, tokenizer=KerasTokenizer(PIECES, TokenizerConfig(lowercase=True)))
    return replace(loaded, preset=replace(loaded.preset, head=HEADS[name]))


@pytest.fixture
async def service() -> AsyncIterator[InferenceService]:
    settings = Settings(
        models=tuple(ModelSettings(preset=name) for name in HEADS), limits=LimitSettings(max_sequences=6)
    )
    registry = ModelRegistry(settings.models)
    metrics, log = Metrics("test"), structlog.get_logger()
    manager = build_manager(settings, registry, metrics, log, load=lambda model, _: load(model.name))
    await manager.load_all()
    yield InferenceService(registry, text_encoder())
    await manager.close()


def ids(model: str, *rows: list[int], **options: object) -> ClassifyRequest:
    return ClassifyRequest(TokenInput([np.array(row) for row in rows]), model=model, **options)  # type: ignore[arg-type]


def texts(model: str, *given: str | tuple[str, str], **options: object) -> ClassifyRequest:
    return ClassifyRequest(TextInput(given), model=model, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "values"),
    [
        (ids(LABELS, [1], [2, 3]), 2 * (3 + 3 * ITEM)),
        (ids(LABELS, [1], [2, 3], options=ClassifyOptions(top_k=1)), 2 * (3 + ITEM)),
        (ids(LABELS, [1], options=ClassifyOptions(top_k=9)), 3 + 3 * ITEM),
        (ids(TAGS, [1, 2], [3]), 3 * (2 + ITEM)),
        (texts(QUESTIONS, ("a", "b"), options=ClassifyOptions(top_k=2)), 5 * 2 + 2 * ITEM),
    ],
)
async def test_the_size_of_a_response_is_limited_and_reserved(
    service: InferenceService, request_: ClassifyRequest, values: int
) -> None:
    reservation = transit_budget().reserve("a", 5)
    await service.classify(replace(request_, max_values=values, transit=Transit(reservation, 7)))
    assert reservation.size == 5 + 7 * values
    with pytest.raises(PayloadTooLarge, match=f"at most {values - 1} numbers; got {values}"):
        await service.classify(replace(request_, max_values=values - 1))


async def test_the_texts_of_spans_count(service: InferenceService) -> None:
    long = "z" * 400  # one unknown word, so every span of it has all characters
    request = texts(TAGS, f"{long} {long}", options=ClassifyOptions(aggregation=Aggregation.NONE))
    values = 4 * (2 + ITEM)
    await service.classify(replace(request, max_values=values + 800 // 4))
    with pytest.raises(PayloadTooLarge):
        await service.classify(replace(request, max_values=values + 800 // 4 - 1))


async def test_windows_count_as_sequences_and_truncation_is_per_input(service: InferenceService) -> None:
    options = ClassifyOptions(stride=2)
    long = " ".join("abcdefgh" * 4)  # 32 ids, in windows of 14
    result = await service.classify(texts(TAGS, "a", long, "b", options=options))
    assert (result.sequences, result.truncated) == (1 + 3 + 1, (False,) * 3)
    longest = result.rows[1][0]
    assert isinstance(longest, Span)
    assert longest.text == "e f g h a b c d e f g h a b"  # of two windows with spans as long, the better one


async def test_a_truncated_text_says_so(service: InferenceService) -> None:
    long = " ".join("abcdefgh" * 4)
    result = await service.classify(texts(TAGS, "a", long, truncation=Truncation.RIGHT))
    assert (result.sequences, result.truncated) == (2, (False, True))


async def test_a_context_has_windows_unless_the_request_has_another_stride(service: InferenceService) -> None:
    long = " ".join("abcdefgh" * 4)
    by_default = await service.classify(texts(QUESTIONS, ("a", long)))
    without = await service.classify(texts(QUESTIONS, ("a", long), options=ClassifyOptions(stride=0)))
    assert by_default.sequences > without.sequences == 3


LONG = "a " * 20


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            texts(QUESTIONS, ("a b c d e f g", LONG)),
            "the first text, such as a question, must leave more than 8 ids, the stride, of a window of 16 ids to the "
            "second; it has 7: use a smaller stride or a shorter first text",
        ),
        (
            texts(QUESTIONS, ("a " * 30, LONG)),
            "must leave more than 8 ids, the stride, of a window of 16 ids to the second; it has 30: use a shorter "
            "first text",
        ),
        (
            texts(QUESTIONS, ("a " * 30, LONG), options=ClassifyOptions(stride=0)),
            "must leave at least one id of a window of 16 ids to the second; it has 30: use a shorter first text",
        ),
        (
            texts(TAGS, LONG, options=ClassifyOptions(stride=14)),
            "a text must fit into at most 1024 windows of 16 ids, special ones included, that share 14; got 22 ids: "
            "use a smaller stride or a shorter text",
        ),
        (
            texts(TAGS, "a " * 14_400, options=ClassifyOptions(stride=0)),
            "that share 0; got 14402 ids: use a shorter text",
        ),
    ],
)
async def test_a_text_without_windows_is_rejected_with_the_cause(
    service: InferenceService, request_: ClassifyRequest, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await service.classify(request_)
    assert caught.value.message.endswith(message)
    assert caught.value.field == "text[0]"


@pytest.mark.parametrize(
    ("stride", "advice"), [(0, "got more: use shorter texts"), (1, "use a smaller stride or shorter texts")]
)
async def test_too_many_windows_are_rejected_with_the_remedy(
    service: InferenceService, stride: int, advice: str
) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        await service.classify(texts(TAGS, "a " * 99, options=ClassifyOptions(stride=stride)))
    assert caught.value.message.endswith(advice)


@pytest.mark.parametrize(("model", "advice"), [(LABELS, "or a lower top_k"), (TAGS, "or shorter texts")])
async def test_a_large_response_is_rejected_with_a_remedy_of_the_head(
    service: InferenceService, model: str, advice: str
) -> None:
    with pytest.raises(PayloadTooLarge, match=f"request fewer sequences, {advice}$"):
        await service.classify(ids(model, [1], max_values=1))


async def test_labeling_leaves_the_event_loop_free(service: InferenceService, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = 0

    async def sleep(delay: float) -> None:
        nonlocal pauses
        pauses += delay == 0

    monkeypatch.setattr(step_runner, "STEP_WORK", 1)  # a pause after each step
    monkeypatch.setattr("electra_serve.serving.classification.step_runner.asyncio.sleep", sleep)
    await service.classify(ids(LABELS, [1, 2], [3, 4]))
    assert pauses == 2 * 2  # the scores and the labels of each
    pauses = 0
    await service.classify(ids(TAGS, [1, 2]))
    assert pauses == 2  # its labels, and its only span


async def test_all_requests_share_the_work_of_an_iteration(
    service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    iteration = 0
    work: Counter[int] = Counter()

    async def count_iterations() -> None:
        nonlocal iteration
        while True:
            iteration += 1
            await asyncio.sleep(0)

    def find_in_steps(*_: object) -> Steps[list[tuple[Label, ...]]]:
        for _step in range(9):
            work[iteration] += 1
            yield HALF
        return [(Label("a", 1.0),)]

    monkeypatch.setattr(classification, "find_in_steps", find_in_steps)
    counting = asyncio.create_task(count_iterations())
    results = await asyncio.gather(*(service.classify(ids(LABELS, [1])) for _ in range(6)))
    counting.cancel()
    assert [result.rows for result in results] == [((Label("a", 1.0),),)] * 6
    assert sum(work.values()) == 6 * 9
    assert max(work.values()) == 2


async def test_a_small_request_does_not_wait_for_the_end_of_a_large_one(
    service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def find_in_steps(plan: object, given: TokenInput, *_: object) -> Steps[list[tuple[Label, ...]]]:
        steps = int(given.token_ids[0][0])
        for _step in range(steps):
            yield 2 * HALF
        ended.append(steps)
        return [()]

    monkeypatch.setattr(classification, "find_in_steps", find_in_steps)
    await asyncio.gather(*(service.classify(ids(LABELS, [steps])) for steps in (90, 1, 2)))
    assert ended == [1, 2, 90]
