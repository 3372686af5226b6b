"""The only entry: requests are checked, and outputs are in order and complete."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import structlog

from electra_serve.batching.admission import QueueLimits
from electra_serve.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    ShuttingDown,
)
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, TokenizerConfig
from electra_serve.presets.tokenizers.loader import NO_FILES, load_tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair, TokenizedText
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.server.models import build_manager
from electra_serve.serving.embed import EmbedRequest
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.request_context import Deadline, RequestContext
from electra_serve.serving.service import InferenceService
from electra_serve.serving.tokenization import TextLimits
from electra_serve.serving.tokenizer_queue import TokenizerQueue
from electra_serve.serving.transit_budget import Transit
from electra_serve.serving.validation import InputLimits, Validated
from electra_serve.settings.schema import LimitSettings, ModelSettings, Settings
from electra_serve.tensors import Output, TextInput, TokenInput, Truncation
from tests.fakes import FAKE_HIDDEN_DIM, SHORT_SHAPES, FakeEngine, loaded_model, text_encoder, transit_budget
from tests.waiting import until

LIMITS = LimitSettings(max_sequences=3, max_text_characters=5000, max_request_characters=9000)
MEAN = frozenset({Output.MEAN})


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(SHORT_SHAPES)


@pytest.fixture
async def service(engine: FakeEngine) -> AsyncIterator[InferenceService]:
    settings = Settings(models=(ModelSettings(preset="ids"), ModelSettings(preset="text")), limits=LIMITS)
    tokenizer = load_tokenizer(resolve_preset("electra_demo"))
    registry = ModelRegistry(settings.models)
    manager = build_manager(
        settings,
        registry,
        Metrics("test"),
        structlog.get_logger(),
        load=lambda model, _: loaded_model(engine, tokenizer=tokenizer if model.name == "text" else NO_FILES),
    )
    await manager.load_all()
    yield InferenceService(registry, text_encoder())
    await manager.close()


def ids(*rows: list[int], **options: object) -> EncodeRequest:
    tokens = TokenInput([np.array(row, np.int64) for row in rows])
    return EncodeRequest(tokens, **{"model": "ids", **options})  # type: ignore[arg-type]


async def test_ids(service: InferenceService) -> None:
    result = await service.encode(ids([1, 2], [3], outputs=frozenset({Output.SEQUENCE, Output.CLS})))
    assert (result.model, result.tokens, result.truncated) == ("ids", 3, (False, False))
    assert [row.get(Output.SEQUENCE)[:, 0].tolist() for row in result.rows] == [[1, 2], [3]]
    assert [row.get(Output.CLS)[0] for row in result.rows] == [1, 3]


async def test_an_embedding_is_the_mean_unless_the_model_says_otherwise(service: InferenceService) -> None:
    result = await service.encode(ids([1, 3], [2], outputs=frozenset({Output.EMBEDDING, Output.MEAN})))

    assert result.outputs == {Output.EMBEDDING, Output.MEAN}
    for row in result.rows:
        assert row.get(Output.EMBEDDING).tolist() == row.get(Output.MEAN).tolist()
    alone = await service.encode(ids([1, 3], outputs=frozenset({Output.EMBEDDING})))
    assert alone.values == result.rows[0].get(Output.MEAN).size
    assert alone.rows[0].get(Output.EMBEDDING).tolist() == result.rows[0].get(Output.MEAN).tolist()


async def test_truncation_is_reported_per_row(service: InferenceService) -> None:
    result = await service.encode(ids([1] * 17, [2] * 16, truncation=Truncation.LONGEST_FIRST, outputs=MEAN))
    assert (result.truncated, result.tokens) == ((True, False), 32)


@pytest.mark.parametrize("text", ["hi", "hi " * 1500], ids=["inline", "on a thread"])
async def test_text_long_or_short_is_tokenized_and_cut_to_the_model(service: InferenceService, text: str) -> None:
    request = EncodeRequest(
        TextInput([text, ("one", "two")]), model="text", outputs=MEAN, truncation=Truncation.LONGEST_FIRST
    )
    with pytest.raises(InvalidInput, match="below the model's vocab_size, 100"):  # the demo's vocabulary is larger
        await service.encode(request)


SHORT = KerasTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"], TokenizerConfig())


@dataclass(frozen=True)
class BoundedTokenizer:
    """One whose files bound its sequences, and that always makes a second segment of a pair."""

    max_length: int | None = 4

    def encode(
        self,
        texts: Sequence[TextOrPair],
        *,
        max_length: int,
        truncation: Truncation = Truncation.NONE,
        stride: int | None = None,
        aligned: bool = False,
    ) -> TokenizedText:
        return SHORT.encode(texts, max_length=max_length, truncation=truncation, stride=stride, aligned=aligned)

    def encode_in_steps(
        self,
        texts: Sequence[TextOrPair],
        *,
        max_length: int,
        truncation: Truncation = Truncation.NONE,
        stride: int | None = None,
        aligned: bool = False,
    ) -> Steps[TokenizedText]:
        return SHORT.encode_in_steps(
            texts, max_length=max_length, truncation=truncation, stride=stride, aligned=aligned
        )

    def piece(self, id_: int) -> str:
        return SHORT.piece(id_)

    def decode(self, token_ids: Sequence[int], *, skip_special: bool) -> str:
        return SHORT.decode(token_ids, skip_special=skip_special)


async def encode_texts(*texts: TextOrPair, truncation: Truncation, num_segments: int = 2) -> Validated:
    limits = InputLimits(vocab_size=10, num_segments=num_segments, max_sequence_length=6, max_sequences=8)
    text_limits = TextLimits(max_characters=100, max_request_characters=100)
    return await text_encoder().encode(TextInput(texts), BoundedTokenizer(), limits, text_limits, truncation)


@pytest.mark.parametrize(
    ("truncation", "ids"),
    [
        (Truncation.NONE, [2, 4, 5, 6, 7, 3]),
        (Truncation.RIGHT, [2, 4, 5, 3]),
        (Truncation.LEFT, [2, 6, 7, 3]),
        (Truncation.LONGEST_FIRST, [2, 4, 5, 3]),
        (Truncation.ONLY_FIRST, [2, 4, 5, 3]),
    ],
)
async def test_what_is_cut_keeps_to_the_tokenizers_bound(truncation: Truncation, ids: list[int]) -> None:
    validated = await encode_texts("a b c d", "a", truncation=truncation)
    assert validated.encodings[0].token_ids.tolist() == ids
    assert validated.truncated == (truncation is not Truncation.NONE, False)


@pytest.mark.parametrize(
    ("texts", "truncation", "message"),
    [
        (["a", "a b c d e"], Truncation.NONE, "at most 6 ids unless truncation is allowed; got 7"),
        (["a", "a b c"], Truncation.ONLY_SECOND, "only_second must leave at most 4 ids; got 5"),
        (["a", ("a b", "c")], Truncation.ONLY_SECOND, "only_second must leave at most 4 ids; got 6"),
        (["a", ("a", "b c")], Truncation.ONLY_FIRST, "only_first must leave at most 4 ids; got 6"),
        (["a", "g"], Truncation.NONE, "below the model's vocab_size, 10; got 10"),
    ],
)
async def test_a_text_that_the_model_cannot_take_is_named(
    texts: list[TextOrPair], truncation: Truncation, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as raised:
        await encode_texts(*texts, truncation=truncation)
    assert raised.value.field == "text[1]"


async def test_a_pair_for_a_model_of_one_segment_is_named_as_a_pair() -> None:
    message = "a text must not be a pair for a model with 1 segment; got a pair"
    with pytest.raises(InvalidInput, match=message) as raised:
        await encode_texts("a", ("a", "b"), truncation=Truncation.NONE, num_segments=1)
    assert raised.value.field == "text[1]"
    assert len((await encode_texts("a", truncation=Truncation.NONE, num_segments=1)).encodings) == 1


async def test_text_needs_a_tokenizer(service: InferenceService) -> None:
    with pytest.raises(
        InvalidInput, match="model ids takes token_ids, not text: the preset has no tokenizer"
    ) as raised:
        await service.encode(EncodeRequest(TextInput(["hi"]), model="ids"))
    assert raised.value.field == "text"


@pytest.mark.parametrize(
    ("texts", "error", "field"),
    [
        ([], InvalidInput, "text"),
        (["a"] * 4, PayloadTooLarge, "text"),
        (["a", "b" * 5001], InvalidInput, "text[1]"),
        ([("b" * 2500, "c" * 2501)], InvalidInput, "text[0]"),
    ],
)
async def test_texts_are_counted_before_they_are_tokenized(
    service: InferenceService, engine: FakeEngine, texts: list[str], error: type[Exception], field: str
) -> None:
    with pytest.raises(error) as raised:
        await service.encode(EncodeRequest(TextInput(texts), model="text"))
    assert getattr(raised.value, "field", None) == field
    assert engine.batches == []


async def test_at_least_one_output(service: InferenceService) -> None:
    with pytest.raises(InvalidInput, match="at least one output"):
        await service.encode(ids([1], outputs=frozenset()))


async def test_unknown_model(service: InferenceService) -> None:
    with pytest.raises(ModelNotFound):
        await service.encode(ids([1], model="nobody"))


async def test_a_response_over_its_transport_s_limit_is_not_computed(
    service: InferenceService, engine: FakeEngine
) -> None:
    both = frozenset({Output.SEQUENCE, Output.CLS})
    values = (3 + 2) * FAKE_HIDDEN_DIM  # three positions, and a vector for each of two rows
    await service.encode(ids([1, 2], [3], outputs=both, max_values=values))
    with pytest.raises(PayloadTooLarge, match="at most 19 numbers; got 20"):
        await service.encode(ids([1, 2], [3], outputs=both, max_values=values - 1))
    assert len(engine.batches) == 1


def rectangle(*rows: list[int], **options: object) -> EncodeRequest:
    """Rows of one length, whose masks are 0 at ids of 0."""
    tokens = [np.array(row, np.int64) for row in rows]
    masks = [(row > 0).astype(np.int64) for row in tokens]
    return replace(ids(**options), input=TokenInput(tokens, padding_mask=masks), rectangular=True)


async def test_padding_of_a_rectangle_is_not_computed(service: InferenceService, engine: FakeEngine) -> None:
    sequence = frozenset({Output.SEQUENCE})
    result = await service.encode(rectangle([5, 0, 0, 0, 0, 0], [7, 8, 9, 0, 0, 0], outputs=sequence))
    ragged = await service.encode(ids([5], [7, 8, 9], outputs=sequence))
    padded, unpadded = engine.batches
    assert padded.shape == unpadded.shape
    assert padded.placements == unpadded.placements
    assert [place.length for place in padded.placements] == [1, 3]
    assert np.array_equal(padded.token_ids, unpadded.token_ids)
    assert np.array_equal(padded.padding_mask, unpadded.padding_mask)
    assert result.row_tokens == ragged.row_tokens == (1, 3)
    assert [row.computed(Output.SEQUENCE).shape[0] for row in result.rows] == [1, 3]
    assert [row.get(Output.SEQUENCE)[:, 0].tolist() for row in result.rows] == [[5, 0, 0, 0, 0, 0], [7, 8, 9, 0, 0, 0]]


async def test_rows_that_are_masked_everywhere_are_rejected(service: InferenceService, engine: FakeEngine) -> None:
    with pytest.raises(InvalidInput, match="at least one 1 in each row") as caught:
        await service.encode(rectangle([1, 0], [0, 0], outputs=MEAN))
    assert (caught.value.field, engine.batches) == ("padding_mask[1]", [])


async def test_zeros_of_a_rectangle_count_in_the_size_of_a_response(
    service: InferenceService, engine: FakeEngine
) -> None:
    both = frozenset({Output.SEQUENCE, Output.CLS})
    values = (2 * 3 + 2) * FAKE_HIDDEN_DIM  # two rows of three positions, and a vector for each
    for request in (
        rectangle([1, 2, 3], [4, 0, 0], outputs=both),
        replace(ids([1, 2, 3], [4], outputs=both), rectangular=True),  # as texts of different lengths
    ):
        engine.batches.clear()
        await service.encode(replace(request, max_values=values))
        with pytest.raises(PayloadTooLarge, match=f"at most {values - 1} numbers; got {values}"):
            await service.encode(replace(request, max_values=values - 1))
        assert len(engine.batches) == 1
    await service.encode(replace(ids([1, 2, 3], [4], outputs=both), max_values=values - 2 * FAKE_HIDDEN_DIM))


async def test_zeros_of_a_rectangle_are_reserved_in_transit(service: InferenceService, engine: FakeEngine) -> None:
    request = replace(ids([1, 2, 3], [4], outputs=frozenset({Output.SEQUENCE})), rectangular=True)
    budget = transit_budget(1000)
    with budget.reserve("a", 10) as reservation:
        await service.encode(replace(request, transit=Transit(reservation, 4)))
        assert reservation.size == 10 + 2 * 3 * FAKE_HIDDEN_DIM * 4
    with budget.reserve("a", 10) as reservation:
        await service.encode(replace(request, transit=Transit(reservation, 4), rectangular=False))
        assert reservation.size == 10 + 4 * FAKE_HIDDEN_DIM * 4
    assert budget.used_bytes == 0


async def test_logits_count_by_their_labels_in_the_size_of_a_response() -> None:
    head = HeadConfig("token_classification", ("a", "b", "c"), "softmax")
    engine = FakeEngine(SHORT_SHAPES, head)
    settings = Settings(models=(ModelSettings(preset="ids"),), limits=LIMITS)
    registry = ModelRegistry(settings.models)
    model = replace(loaded_model(engine), preset=replace(loaded_model(engine).preset, head=head))
    manager = build_manager(settings, registry, Metrics("test"), structlog.get_logger(), load=lambda *_: model)
    await manager.load_all()
    service, outputs = InferenceService(registry, text_encoder()), frozenset({Output.TOKEN_LOGITS, Output.CLS})
    values = 3 * len(head.labels) + 2 * FAKE_HIDDEN_DIM  # three positions and two vectors
    result = await service.encode(ids([1, 2], [3], outputs=outputs, max_values=values))
    assert result.values == values
    with pytest.raises(PayloadTooLarge, match=f"at most {values - 1} numbers; got {values}"):
        await service.encode(ids([1, 2], [3], outputs=outputs, max_values=values - 1))
    await manager.close()


@pytest.mark.parametrize(("own", "common", "passes"), [(0.05, 30, True), (30, 0.05, False), (None, 0.05, True)])
async def test_a_models_own_longest_timeout_holds(own: float | None, common: float, *, passes: bool) -> None:
    engine = FakeEngine(SHORT_SHAPES)
    model = {"preset": "ids", "limits": None if own is None else {"max_timeout_s": own}}
    settings = Settings.model_validate({"models": [model], "limits": {"max_timeout_s": common}})
    registry = ModelRegistry(settings.models)
    load, log = lambda *_: loaded_model(engine), structlog.get_logger()
    manager = build_manager(settings, registry, Metrics("test"), log, load=load)
    await manager.load_all()
    service = InferenceService(registry, text_encoder())
    engine.gate.clear()
    request = asyncio.create_task(
        service.encode(ids([1], outputs=MEAN, context=RequestContext(deadline=Deadline.after(60.0))))
    )
    done, _ = await asyncio.wait({request}, timeout=0.5)
    engine.gate.set()
    assert bool(done) is passes
    if passes:
        with pytest.raises(DeadlineExceeded):
            await request
    else:
        assert (await request).tokens == 1
    await manager.close()


async def test_a_deadline_that_has_passed_is_said_at_once(service: InferenceService, engine: FakeEngine) -> None:
    with pytest.raises(DeadlineExceeded):
        await service.encode(ids([1], context=RequestContext(deadline=Deadline.after(0.0))))
    long_text = EncodeRequest(
        TextInput(["long " * 900]), model="text", context=RequestContext(deadline=Deadline.after(0.0))
    )
    with pytest.raises(DeadlineExceeded, match="before the texts were tokenized"):
        await service.encode(long_text)


async def test_all_texts_together_are_bounded(service: InferenceService) -> None:
    with pytest.raises(PayloadTooLarge, match="at most 9000 characters; got 9001"):
        await service.encode(EncodeRequest(TextInput(["a" * 4500, "b" * 4501]), model="text"))


async def test_texts_being_tokenized_count_for_their_clients_share_of_the_queue(
    service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that would be rejected later is rejected before it is tokenized."""
    reading, release = threading.Event(), threading.Event()

    def held(*_: object, **__: object) -> Steps[TokenizedText]:
        reading.set()
        yield 0
        release.wait(10)
        raise InvalidInput("this text ends the request")

    model = service._registry.ready_model("text")
    monkeypatch.setattr(type(model.tokenizer), "encode_in_steps", held)
    text = TextInput(["long " * 900] * 2)
    settings = model.batcher.queue._admission._limits
    monkeypatch.setattr(model.batcher.queue._admission, "_limits", QueueLimits(4, settings.max_tokens))
    first = asyncio.create_task(service.encode(EncodeRequest(text, model="text", context=RequestContext(client="a"))))
    await asyncio.to_thread(reading.wait, 10)
    with pytest.raises(Overloaded, match="this client has 2 queued") as rejection:
        await service.encode(EncodeRequest(text, model="text", context=RequestContext(client="a")))
    assert rejection.value.retry_after_s is not None
    service.ensure_capacity("b")
    release.set()
    with pytest.raises(InvalidInput, match="ends the request"):
        await first
    assert model.batcher.queue._admission._reserved == {}


async def test_retry_after_counts_both_queues(service: InferenceService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenizerQueue, "work_s", 3.0)
    model = service._registry.ready_model("text")
    monkeypatch.setattr(type(model.batcher), "queued_work_s", 5.0)
    request = EncodeRequest(TextInput(["long " * 900]), model="text")

    def full(*_: object, **__: object) -> None:
        raise Overloaded("full", retry_after_s=2.0)

    with monkeypatch.context() as patch:
        patch.setattr(type(model.batcher), "ensure_capacity", full)
        with pytest.raises(Overloaded, match="full") as engines:
            await service.encode(request)
    monkeypatch.setattr(TokenizerQueue, "_ensure_capacity", full)
    with pytest.raises(Overloaded, match="full") as tokenizers:
        await service.encode(request)
    assert (engines.value.retry_after_s, tokenizers.value.retry_after_s) == (5.0, 7.0)


@pytest.fixture
async def short_texts(engine: FakeEngine) -> AsyncIterator[InferenceService]:
    """A service with one model that takes texts and at most three sequences in a request."""
    settings = Settings(models=(ModelSettings(preset="text"),), limits=LIMITS)
    registry = ModelRegistry(settings.models)
    manager = build_manager(
        settings,
        registry,
        Metrics("test"),
        structlog.get_logger(),
        load=lambda *_: loaded_model(engine, tokenizer=BoundedTokenizer()),
    )
    await manager.load_all()
    yield InferenceService(registry, text_encoder())
    await manager.close()


@pytest.mark.parametrize("count", [1, 3, 4, 20])
async def test_vectors_of_many_inputs_are_those_of_each_alone(short_texts: InferenceService, count: int) -> None:
    texts = ["a " * (number % 5) for number in range(count)]
    together = await short_texts.embed(EmbedRequest(TextInput(texts)))
    alone = [await short_texts.embed(EmbedRequest(TextInput([text]))) for text in texts]
    for vector, single in zip(together.vectors, alone, strict=True):
        np.testing.assert_allclose(vector, single.vectors[0], atol=1e-6)
        assert np.linalg.norm(vector) == pytest.approx(1.0)
    assert together.tokens == sum(result.tokens for result in alone)


async def test_long_inputs_are_truncated_and_marked(short_texts: InferenceService) -> None:
    result = await short_texts.embed(EmbedRequest(TextInput(["a"] * 4 + ["a " * 50] + ["a"])))
    assert result.truncated == (False, False, False, False, True, False)


async def test_an_invalid_input_is_named_by_its_index_in_the_request(short_texts: InferenceService) -> None:
    long = "a" * (LIMITS.max_text_characters + 1)
    with pytest.raises(InvalidInput) as caught:
        await short_texts.embed(EmbedRequest(TextInput([*["a"] * 7, long])))
    assert caught.value.field == "text[7]"


async def test_a_response_of_too_many_numbers_is_rejected_before_anything_is_computed(
    short_texts: InferenceService, engine: FakeEngine
) -> None:
    before = len(engine.batches)
    with pytest.raises(PayloadTooLarge, match="fewer inputs"):
        await short_texts.embed(EmbedRequest(TextInput(["a", "b"]), max_values=2 * FAKE_HIDDEN_DIM - 1))
    assert len(engine.batches) == before


async def test_a_small_request_waits_only_for_some_slices_of_its_clients_large_ones(
    short_texts: InferenceService, engine: FakeEngine
) -> None:
    large = [asyncio.create_task(short_texts.embed(EmbedRequest(TextInput(["a"] * 300)))) for _ in range(3)]
    await until(lambda: bool(engine.batches))
    await short_texts.embed(EmbedRequest(TextInput(["a"])))
    assert not any(task.done() for task in large)
    assert [len(result.vectors) for result in await asyncio.gather(*large)] == [300] * 3


async def test_a_drain_completes_all_slices_of_an_accepted_request(
    short_texts: InferenceService, engine: FakeEngine
) -> None:
    large = asyncio.create_task(short_texts.embed(EmbedRequest(TextInput(["a"] * 300))))
    await until(lambda: bool(engine.batches))
    for batcher in short_texts._registry.batchers:
        batcher.reject()
    with pytest.raises(ShuttingDown):
        await short_texts.embed(EmbedRequest(TextInput(["a"])))
    assert len((await large).vectors) == 300


async def test_slices_that_do_not_start_before_the_deadline_are_an_overload(short_texts: InferenceService) -> None:
    late = RequestContext(deadline=Deadline(0.0))
    with pytest.raises(Overloaded, match="before all parts"):
        await short_texts.embed(EmbedRequest(TextInput(["a"] * 300), context=late))
