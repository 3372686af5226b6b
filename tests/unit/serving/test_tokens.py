"""Tokens, texts of ids, vectors of tokens and labels of many inputs, in slices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import structlog

from electra_serve import errors
from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, TokenizerConfig
from electra_serve.presets.tokenizers.loader import NO_FILES
from electra_serve.server.models import build_manager
from electra_serve.serving.classification.find import VALUES_PER_ITEM
from electra_serve.serving.classification.results import ClassifyOptions
from electra_serve.serving.classify import ClassifyRequest
from electra_serve.serving.embed import EmbedRequest
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.request_context import NO_CONTEXT, Deadline
from electra_serve.serving.service import InferenceService
from electra_serve.serving.slices import SLICE
from electra_serve.serving.tokens import VALUES_PER_TOKEN, DetokenizeRequest, TokenizeRequest
from electra_serve.serving.transit_budget import Transit
from electra_serve.settings.schema import EmbeddingSettings, LimitSettings, ModelSettings, Settings
from electra_serve.tensors import TextInput, TokenInput, Truncation
from tests.fakes import FAKE_HIDDEN_DIM, SHORT_SHAPES, FakeEngine, loaded_model, text_encoder, transit_budget

ENCODER, LABELS, IDS = "encoder", "labels", "ids"
HEAD = HeadConfig("sequence_classification", ("a", "b", "c"), "softmax")
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "##b"]
MANY = 3 * SLICE + 1


def load(name: str) -> LoadedModel:
    head = HEAD if name == LABELS else None
    engine = FakeEngine(SHORT_SHAPES, head)
    tokenizer = KerasTokenizer(PIECES, TokenizerConfig(lowercase=True))
    loaded = loaded_model(engine, tokenizer=NO_FILES if name == IDS else tokenizer)
    prompts = EmbeddingConfig(prompts={"query": "h "})
    return replace(loaded, preset=replace(loaded.preset, head=head, embedding=prompts))


@pytest.fixture
async def service() -> AsyncIterator[InferenceService]:
    models = (
        ModelSettings(preset=ENCODER),
        ModelSettings(preset=LABELS, embedding=EmbeddingSettings(truncate=False)),
        ModelSettings(preset=IDS, embedding=EmbeddingSettings(token_ids="model")),
    )
    settings = Settings(models=models, limits=LimitSettings(max_sequences=6, max_text_characters=2000))
    registry = ModelRegistry(settings.models)
    metrics, log = Metrics("test"), structlog.get_logger()
    manager = build_manager(settings, registry, metrics, log, load=lambda model, _: load(model.name))
    await manager.load_all()
    yield InferenceService(registry, text_encoder())
    await manager.close()


@pytest.mark.parametrize("length", [1, 400])  # inline, and in the queue
async def test_tokens_have_their_places(service: InferenceService, length: int) -> None:
    texts = ("ab x", *(["A"] * length))
    result = await service.tokenize(TokenizeRequest(TextInput(texts), model=ENCODER))
    first, *others = result.rows
    assert first.token_ids.tolist() == [2, 4, 12, 1, 3]
    assert list(zip(first.starts.tolist(), first.ends.tolist(), strict=True))[1:-1] == [(0, 1), (1, 2), (3, 4)]
    assert first.special.tolist() == [True, False, False, False, True]
    assert [row.token_ids.tolist() for row in others] == [[2, 4, 3]] * length
    assert (result.model, result.tokens, result.pieces) == (ENCODER, 5 + 3 * length, {2: "[CLS]", 3: "[SEP]"})


@pytest.mark.parametrize("length", [1, 400])  # inline, and in the queue
async def test_the_pieces_of_all_tokens(service: InferenceService, length: int) -> None:
    request = TokenizeRequest(TextInput(("ab x", *(["A"] * length))), model=ENCODER, all_pieces=True)
    pieces = {id_: PIECES[id_] for id_ in (1, 2, 3, 4, 12)}
    assert (await service.tokenize(request)).pieces == pieces


@pytest.mark.parametrize(("prompted", "text"), [(True, "h a"), (False, "a")])
async def test_a_default_prompt_can_be_left_out(prompted: bool, text: str) -> None:
    model = ModelSettings(preset=ENCODER)
    registry = ModelRegistry((model,))
    loaded = load(ENCODER)
    embedding = EmbeddingConfig(prompts={"query": "h "}, default_prompt="query")
    loaded = replace(loaded, preset=replace(loaded.preset, embedding=embedding))
    settings, log = Settings(models=(model,)), structlog.get_logger()
    manager = build_manager(settings, registry, Metrics("test"), log, load=lambda *_: loaded)
    await manager.load_all()
    result = await InferenceService(registry, text_encoder()).tokenize(
        TokenizeRequest(TextInput(("a",)), prompted=prompted)
    )
    assert [row.text for row in result.rows] == [text]
    await manager.close()


async def test_tokens_without_the_template_and_with_a_prompt(service: InferenceService) -> None:
    request = TokenizeRequest(TextInput(("a", "")), model=ENCODER, prompt_name="query", add_special_tokens=False)
    result = await service.tokenize(request)
    assert [(row.text, row.token_ids.tolist()) for row in result.rows] == [("h a", [11, 4]), ("h ", [11])]
    assert result.pieces == {}
    with pytest.raises(InvalidInput, match="prompt_name must be among query"):
        await service.tokenize(replace(request, prompt_name="title"))


async def test_tokens_are_not_truncated_but_limited(service: InferenceService) -> None:
    request = TokenizeRequest(TextInput(("a " * 500,)), model=ENCODER)
    result = await service.tokenize(replace(request, max_values=VALUES_PER_TOKEN * 502))
    assert result.tokens == 502
    with pytest.raises(PayloadTooLarge):
        await service.tokenize(replace(request, max_values=VALUES_PER_TOKEN * 502 - 1))
    with pytest.raises(InvalidInput, match="at most 2000 characters") as caught:
        await service.tokenize(TokenizeRequest(TextInput(["a"] * 40 + ["a" * 2001]), model=ENCODER))
    assert caught.value.field == "text[40]"


async def test_ids_become_texts(service: InferenceService) -> None:
    rows = [np.array(row, np.int64) for row in ([2, 4, 12, 5, 3], [1, 999], [])]
    request = DetokenizeRequest(TokenInput(rows), model=ENCODER)
    result = await service.detokenize(request)
    assert (result.texts, result.tokens) == (("ab b", "", ""), 7)
    whole = await service.detokenize(replace(request, skip_special_tokens=False))
    assert whole.texts == ("[CLS] ab b [SEP]", "[UNK]", "")


@pytest.mark.parametrize("id_", [-1, 2**31, 2**40])
async def test_ids_that_no_vocabulary_has_are_rejected(service: InferenceService, id_: int) -> None:
    rows = [np.array([1]), np.array([1, id_])]
    with pytest.raises(InvalidInput, match="ids must be from 0 to") as caught:
        await service.detokenize(DetokenizeRequest(TokenInput(rows), model=ENCODER))
    assert caught.value.field == "token_ids[1]"


async def test_sizes_of_ids_are_limited(service: InferenceService) -> None:
    with pytest.raises(InvalidInput, match="at most 2000 ids; got 2001"):
        await service.detokenize(DetokenizeRequest(TokenInput([np.ones(2001, np.int64)]), model=ENCODER))
    with pytest.raises(PayloadTooLarge):
        await service.detokenize(DetokenizeRequest(TokenInput([np.ones(9, np.int64)]), model=ENCODER, max_values=8))


async def test_a_model_without_a_tokenizer(service: InferenceService) -> None:
    with pytest.raises(InvalidInput, match="takes token_ids, not text"):
        await service.tokenize(TokenizeRequest(TextInput(("a",)), model=IDS))
    with pytest.raises(InvalidInput, match="takes token_ids, not text"):
        await service.detokenize(DetokenizeRequest(TokenInput([np.array([1])]), model=IDS))


async def test_vectors_of_tokens_in_slices(service: InferenceService) -> None:
    rows = [np.array([1 + index % 9, 2]) for index in range(MANY)]
    values = 2 * MANY * FAKE_HIDDEN_DIM
    request = EmbedRequest(TokenInput(rows), model=IDS, per_token=True, max_values=values)
    reservation = transit_budget().reserve("a", 5)
    result = await service.embed(replace(request, transit=Transit(reservation, 3)))
    assert [vectors[:, 0].tolist() for vectors in result.vectors] == [row.tolist() for row in rows]
    assert (result.tokens, reservation.size) == (2 * MANY, 5 + 3 * values)
    with pytest.raises(PayloadTooLarge, match=f"at most {values - 1} numbers"):
        await service.embed(replace(request, max_values=values - 1))


async def test_labels_of_many_inputs(service: InferenceService) -> None:
    options = ClassifyOptions(raw_scores=True)
    texts = TextInput([("a", "b") if index % 2 else "c" for index in range(MANY)])
    request = ClassifyRequest(texts, model=LABELS, options=options)
    values = MANY * 3 * (1 + VALUES_PER_ITEM)
    reservation = transit_budget().reserve("a", 5)
    result = await service.predict(replace(request, max_values=values, transit=Transit(reservation, 3)))
    assert (len(result.rows), len(result.truncated), result.sequences) == (MANY, MANY, MANY)
    assert reservation.size == 5 + 3 * values
    alone = await service.classify(replace(request, input=TextInput(texts.texts[:2])))
    assert list(result.rows[:2]) == list(alone.rows)
    with pytest.raises(PayloadTooLarge):
        await service.predict(replace(request, max_values=values - 1))


async def test_labels_need_a_head_that_labels_sequences(service: InferenceService) -> None:
    with pytest.raises(InvalidInput, match="models with a sequence_classification head are labels") as caught:
        await service.predict(ClassifyRequest(TextInput(("a",)), model=ENCODER))
    assert caught.value.field == "model"


async def test_long_inputs_to_label(service: InferenceService) -> None:
    request = ClassifyRequest(TextInput(["a"] * SLICE + ["a " * 30]), model=LABELS)
    with pytest.raises(InvalidInput, match="unless truncation is allowed") as caught:
        await service.predict(request)
    assert caught.value.field == f"text[{SLICE}]"
    result = await service.predict(replace(request, truncation=Truncation.RIGHT))
    assert result.truncated == (*(False,) * SLICE, True)


async def test_truncation_of_a_model(service: InferenceService) -> None:
    assert (service.truncates(ENCODER), service.truncates(LABELS)) == (True, False)


async def test_the_deadline_bounds_the_tokenizer(service: InferenceService) -> None:
    context = replace(NO_CONTEXT, deadline=Deadline(0.0))
    request = TokenizeRequest(TextInput(("a " * 900,)), model=ENCODER, context=context)
    with pytest.raises((errors.DeadlineExceeded, errors.Overloaded)):
        await service.tokenize(request)
