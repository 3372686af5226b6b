"""A model's way from LOADING to READY or FAILED, and what requests see of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import structlog
import structlog.testing

from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import ModelNotFound, ModelNotReady, PresetError
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, TokenizerConfig
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.server.models import build_manager
from electra_serve.serving.manager import ModelManager
from electra_serve.serving.model_info import ModelState
from electra_serve.serving.registry import ModelRegistry
from electra_serve.settings.schema import BatchingSettings, ModelSettings, Settings
from electra_serve.tensors import Batch, Encoding, Output
from tests.fakes import SHORT_SHAPES, FakeEngine, loaded_model

TOKENIZER = KerasTokenizer(["[UNK]", "[CLS]", "[SEP]"], TokenizerConfig())
Loader = Callable[[ModelSettings, BatchingSettings], LoadedModel]


def load_fake(_: ModelSettings, __: BatchingSettings) -> LoadedModel:
    return loaded_model()


def make(load: Loader = load_fake, *names: str) -> tuple[ModelRegistry, ModelManager, Metrics]:
    metrics = Metrics("test")
    models = tuple(ModelSettings(preset=name) for name in names or ("one",))
    registry = ModelRegistry(models)
    settings, log = Settings(models=models), structlog.get_logger()
    return registry, build_manager(settings, registry, metrics, log, load=load), metrics


async def test_a_model_is_loading_until_it_is_ready() -> None:
    registry, manager, metrics = make()
    assert registry.info("one").state is ModelState.LOADING
    ready_before = registry.ready
    with pytest.raises(ModelNotReady, match="one is loading") as rejection:
        registry.ready_model("one")
    assert rejection.value.retry_after_s == 1.0
    await manager.load_all()
    assert (ready_before, registry.ready) == (False, True)
    assert registry.ready_model(None) is registry.ready_model("one")
    assert metrics.registry.get_sample_value("electra_model_ready", {"model": "one"}) == 1
    await manager.close()


async def test_a_model_that_fails_to_load_says_so_and_stops_the_start() -> None:
    tried: list[str] = []

    def load(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        tried.append(settings.name)
        if settings.name == "bad":
            raise PresetError("no such preset")
        return load_fake(settings, batching)

    registry, manager, _ = make(load, "good", "bad", "never")
    with pytest.raises(PresetError):
        await manager.load_all()
    assert tried == ["good", "bad"]
    assert [info.state for info in registry.infos()] == [ModelState.READY, ModelState.FAILED, ModelState.LOADING]
    assert not registry.ready
    with pytest.raises(ModelNotReady, match="bad is failed"):
        registry.ready_model("bad")
    await manager.close()


async def test_a_model_without_text_gives_its_reason() -> None:
    reason = "tokenizer_class must be one of BertTokenizer"

    def load(settings: ModelSettings, _: BatchingSettings) -> LoadedModel:
        return loaded_model(tokenizer=NoTokenizer(reason) if settings.name == "ids" else TOKENIZER)

    with structlog.testing.capture_logs() as lines:
        registry, manager, _ = make(load, "ids", "text")
        await manager.load_all()
    assert [(info.text, info.text_reason) for info in registry.infos()] == [(False, reason), (True, None)]
    reported = [line for line in lines if line["event"] == "model rejects text"]
    assert [(line["model"], line["reason"], line["log_level"]) for line in reported] == [("ids", reason, "warning")]
    await manager.close()


async def test_unknown_and_unnamed_models() -> None:
    registry, manager, _ = make(load_fake, "a", "b")
    await manager.load_all()
    with pytest.raises(ModelNotFound, match="must be one of a, b"):
        registry.ready_model(None)
    with pytest.raises(ModelNotFound, match="must be one of a, b"):
        registry.info("c")
    assert registry.ready_model("b").name == "b"
    assert [registry.label(name) for name in ("a", "c", None)] == ["a", "", ""]
    await manager.close()


async def test_the_only_model_needs_no_name() -> None:
    registry, manager, _ = make()
    assert [registry.label(name) for name in ("one", "two", None)] == ["one", "", "one"]
    await manager.close()


async def test_loading_does_not_hold_the_event_loop() -> None:
    started, release = threading.Event(), threading.Event()
    threads: list[str] = []

    def load(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        threads.append(threading.current_thread().name)
        started.set()
        release.wait()
        return load_fake(settings, batching)

    _, manager, _ = make(load)
    release.set()
    await manager.load_all()
    assert threads != [threading.main_thread().name]
    await manager.close()


async def test_the_description_of_a_ready_model() -> None:
    registry, manager, _ = make()
    await manager.load_all()
    info = registry.info("one")
    assert (info.source, info.engine, info.device) == ("local", "fake", "cpu")
    assert (info.weights, info.pooler) == ("random", "random")
    assert info.limits is not None
    assert (info.limits.max_sequences, info.limits.max_sequence_length) == (256, 16)
    assert (info.text, info.replicas) == (False, 1)
    assert info.config is not None
    assert info.parameters == info.config.parameters
    assert info.batch_shapes is not None
    assert [(cost.rows, cost.length) for cost in info.batch_shapes] == list(SHORT_SHAPES)
    assert info.batch_tokens == 4 * 16
    await manager.close()


async def test_the_description_follows_the_batch_limit() -> None:
    engine = FakeEngine(SHORT_SHAPES)

    def fail(batch: Batch) -> None:
        if len(batch.placements) > 1:
            raise MemoryError

    engine.fail = fail
    registry, manager, _ = make(lambda _, __: loaded_model(engine))
    await manager.load_all()
    before = registry.info("one").batch_tokens
    ids = np.full(8, 3, np.int32)
    row = Encoding(ids, ids * 0, ids * 0 + 1, len(ids), len(ids))
    await registry.ready_model("one").batcher.submit([row] * 4, frozenset({Output.MEAN}))
    batcher = registry.ready_model("one").batcher
    assert before is not None
    assert batcher.batch_tokens < before
    assert registry.info("one").batch_tokens == batcher.batch_tokens
    await manager.close()


async def test_retiring_turns_readiness_off_while_requests_are_served() -> None:
    registry, manager, _ = make()
    await manager.load_all()
    registry.drain()
    assert not registry.ready
    assert registry.ready_model(None).batcher.alive
    await manager.close()


async def test_closing_frees_the_engines() -> None:
    engine = FakeEngine(SHORT_SHAPES)
    registry, manager, metrics = make(lambda _, __: loaded_model(engine))
    await manager.load_all()
    await manager.close()
    assert engine.closed
    assert registry.info("one").state is ModelState.UNLOADING
    assert metrics.registry.get_sample_value("electra_model_ready", {"model": "one"}) == 0
    with pytest.raises(ModelNotReady):
        registry.ready_model(None)


async def test_every_change_of_readiness_is_notified() -> None:
    registry, manager, _ = make(load_fake, "one", "two")
    seen: list[bool] = []
    registry.notify(lambda: seen.append(registry.ready))
    await manager.load_all()
    assert (seen.pop(), registry.ready) == (True, True)
    batcher = registry.ready_model("one").batcher
    batcher._set_stalled(True)
    assert seen.pop() is False
    batcher._set_stalled(False)
    assert seen.pop() is True
    batcher._set_stalled(True)
    registry.withdraw(registry.entry("one"))
    assert seen.pop() is True, "what is left is ready"
    registry.drain()
    assert seen.pop() is False
    await manager.close()


async def test_a_model_that_fails_is_notified() -> None:
    registry, manager, _ = make()
    seen: list[str] = []
    await manager.load_all()
    registry.notify(lambda: seen.append(registry.failure))
    registry.ready_model(None).batcher._fail_engine("an engine hangs")
    assert seen == ["one: an engine hangs"]
    await manager.close()
