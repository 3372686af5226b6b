"""Rerank requests: order, scores, truncation, slices, and errors that name the member at fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pytest
import structlog

from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import InvalidInput, ModelNotFound, PayloadTooLarge
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, TokenizerConfig
from electra_serve.server.models import build_manager
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.rerank import RerankRequest, rank
from electra_serve.serving.service import InferenceService
from electra_serve.serving.slices import SLICES_AT_ONCE
from electra_serve.settings.schema import LimitSettings, ModelSettings, Settings
from electra_serve.tensors import Batch, Float32Array, Output, Truncation
from tests.fakes import SHORT_SHAPES, FakeEngine, loaded_model, text_encoder

ONE_LABEL: Final = HeadConfig("sequence_classification", ("relevant",), "none")
TWO_LABELS: Final = HeadConfig("sequence_classification", ("bad", "good"), "softmax")
LETTERS: Final = KerasTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"], TokenizerConfig())
LIMITS: Final = LimitSettings(max_sequences=3, max_text_characters=200, max_request_characters=300)
LONGEST: Final = 16


class CrossEncoder(FakeEngine):
    """Engine whose logit is 10 times the last letter of the document, minus 50."""

    def _logits(self, hidden: Float32Array) -> Float32Array:
        batch: Batch = self.batches[-1]
        logits = np.zeros((*hidden.shape[:2], 1), np.float32)
        for place in batch.placements:
            last = batch.token_ids[place.row, place.start + place.length - 2]
            logits[place.row, place.slot, 0] = 10.0 * (int(last) - 4) - 50
        return logits


def with_head(engine: FakeEngine) -> LoadedModel:
    loaded = loaded_model(engine, tokenizer=LETTERS)
    return replace(loaded, preset=replace(loaded.preset, head=engine.head))


@pytest.fixture
def engines() -> Mapping[str, FakeEngine]:
    return {
        "ranker": CrossEncoder(SHORT_SHAPES, ONE_LABEL),
        "sentiment": FakeEngine(SHORT_SHAPES, TWO_LABELS),
        "encoder": FakeEngine(SHORT_SHAPES),
    }


@pytest.fixture
async def service(engines: Mapping[str, FakeEngine]) -> AsyncIterator[InferenceService]:
    settings = Settings(models=tuple(ModelSettings(preset=name) for name in engines), limits=LIMITS)
    registry = ModelRegistry(settings.models)
    manager = build_manager(
        settings,
        registry,
        Metrics("test"),
        structlog.get_logger(),
        load=lambda model, _: with_head(engines[model.name]),
    )
    await manager.load_all()
    yield InferenceService(registry, text_encoder())
    await manager.close()


def sigmoid(*logits: float) -> list[float]:
    return [1 / (1 + float(np.exp(-logit))) for logit in logits]


async def test_documents_are_scored_and_the_best_come_first(service: InferenceService) -> None:
    result = await service.rerank(RerankRequest("a b", ["e", "h", "f"], model="ranker"))
    assert result.model == "ranker"
    assert result.scores.tolist() == pytest.approx(sigmoid(-10, 20, 0), abs=1e-6)
    assert result.order == (1, 2, 0)
    assert result.truncated == (False, False, False)
    assert result.tokens == 3 * len(["[CLS]", "a", "b", "[SEP]", "e", "[SEP]"])


async def test_raw_scores_are_logits(service: InferenceService, engines: Mapping[str, FakeEngine]) -> None:
    result = await service.rerank(RerankRequest("a", ["h", "e"], model="ranker", raw_scores=True, top_n=1))
    assert result.scores.tolist() == [20.0, -10.0]
    assert result.order == (0,)
    assert set(engines["ranker"].requested) == {frozenset({Output.LOGITS})}


async def test_many_documents_are_scored_in_slices(
    service: InferenceService, engines: Mapping[str, FakeEngine]
) -> None:
    documents = ["abcdefgh"[number % 8] for number in range(50)]
    result = await service.rerank(RerankRequest("a", documents, model="ranker", raw_scores=True))
    assert result.scores.tolist() == [10.0 * (number % 8) - 50 for number in range(50)]
    assert result.order[:7] == (7, 15, 23, 31, 39, 47, 6)
    together = max(len(batch.placements) for batch in engines["ranker"].batches)
    assert together <= SLICES_AT_ONCE * LIMITS.max_sequences


async def test_only_documents_are_truncated(service: InferenceService, engines: Mapping[str, FakeEngine]) -> None:
    result = await service.rerank(RerankRequest("a b c", ["e", "d " * 40], model="ranker"))
    assert result.truncated == (False, True)
    letters = [4 + "abcdefgh".index(letter) for letter in "abc"]
    for batch in engines["ranker"].batches:
        for place in batch.placements:
            assert batch.token_ids[place.row, place.start + 1 : place.start + 4].tolist() == letters
            assert place.length <= LONGEST


async def test_a_pair_for_each_document(service: InferenceService) -> None:
    request = RerankRequest("", ["e", "h"], queries=["a", "b c"], model="ranker", raw_scores=True)
    result = await service.rerank(request)
    assert (result.scores.tolist(), result.tokens) == ([-10.0, 20.0], 5 + 6)


@pytest.mark.parametrize("length", [LONGEST - 3, LONGEST - 2, 40])
async def test_a_query_that_leaves_no_room_is_named(service: InferenceService, length: int) -> None:
    with pytest.raises(InvalidInput, match=f"query must have fewer than {LONGEST} ids") as caught:
        await service.rerank(RerankRequest("a " * length, ["d", "e"], model="ranker"))
    assert caught.value.field == "query"


async def test_a_query_that_leaves_room_for_one_id_is_served(service: InferenceService) -> None:
    result = await service.rerank(RerankRequest("a " * (LONGEST - 4), ["h h h"], model="ranker", raw_scores=True))
    assert (result.scores.tolist(), result.truncated) == ([20.0], (True,))


async def test_a_long_query_of_one_pair_is_named_by_its_index(service: InferenceService) -> None:
    documents = ["d"] * 8
    queries = [*["a"] * 7, "a " * 40]
    request = RerankRequest("", documents, queries=queries, model="ranker", fields=("text_1", "text_2"))
    with pytest.raises(InvalidInput, match="text_1 must have fewer") as caught:
        await service.rerank(request)
    assert caught.value.field == "text_1[7]"


async def test_a_long_document_is_named_by_its_index(service: InferenceService) -> None:
    long = "d" * (LIMITS.max_text_characters + 1)
    with pytest.raises(InvalidInput, match="at most 200 characters") as caught:
        await service.rerank(RerankRequest("a", [*["d"] * 7, long], model="ranker"))
    assert caught.value.field == "documents[7]"


async def test_a_query_of_too_many_characters_is_named(service: InferenceService) -> None:
    with pytest.raises(InvalidInput, match="at most 200 characters") as caught:
        await service.rerank(RerankRequest("a" * 201, ["d"], model="ranker"))
    assert caught.value.field == "query"


async def test_without_truncation_long_pairs_are_rejected(service: InferenceService) -> None:
    request = RerankRequest("a", ["d", "d " * 40], model="ranker", truncation=Truncation.NONE)
    with pytest.raises(InvalidInput, match="unless truncation is allowed") as caught:
        await service.rerank(request)
    assert caught.value.field == "documents[1]"


@pytest.mark.parametrize(
    ("model", "head"), [("sentiment", "sequence_classification with 2 labels"), ("encoder", "none")]
)
async def test_another_model_is_rejected_with_the_names_of_cross_encoders(
    service: InferenceService, model: str, head: str
) -> None:
    with pytest.raises(InvalidInput, match=f"{model} is {head}, and served cross-encoders are ranker$") as caught:
        await service.rerank(RerankRequest("a", ["d"], model=model))
    assert caught.value.field == "model"


async def test_an_unknown_model_is_rejected(service: InferenceService) -> None:
    with pytest.raises(ModelNotFound):
        await service.rerank(RerankRequest("a", ["d"], model="other"))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (RerankRequest("a", [], model="ranker"), "documents"),
        (RerankRequest("a", ["d"], model="ranker", top_n=0), "top_n"),
    ],
)
async def test_invalid_requests(service: InferenceService, request_: RerankRequest, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await service.rerank(request_)
    assert caught.value.field == field


async def test_a_response_that_is_too_large_is_rejected_before_anything_is_computed(
    service: InferenceService, engines: Mapping[str, FakeEngine]
) -> None:
    request = RerankRequest("a", ["d" * 100] * 2, model="ranker", returns_documents=True, max_values=60)
    with pytest.raises(PayloadTooLarge, match="fewer documents"):
        await service.rerank(request)
    assert engines["ranker"].batches == []


def test_scores_that_are_equal_after_the_sigmoid_keep_the_order_of_their_logits() -> None:
    scores, order = rank(np.array([30, 40, 50, 40], np.float32), RerankRequest("q", ["a"] * 4))
    assert scores.tolist() == [1.0] * 4
    assert order == (2, 1, 3, 0)
