"""Models are loaded, removed and replaced while requests are served."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import structlog

from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import (
    Conflict,
    InvalidInput,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    PresetError,
    ShuttingDown,
)
from electra_serve.observability.metrics import Metrics
from electra_serve.server.models import build_manager
from electra_serve.serving.encode import EncodeRequest, EncodeResult
from electra_serve.serving.model_info import Change, ModelState
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.service import InferenceService
from electra_serve.settings.schema import BatchingSettings, ModelSettings, Settings
from electra_serve.tensors import BatchShape, Output, TokenInput
from tests.fakes import SHORT_SHAPES, FakeEngine, encoding, fake_timings, loaded_model, text_encoder
from tests.waiting import until

SOON_S = 30.0
"""For what takes no time, however busy the machine is."""


def model(preset: str, name: str = "one", **fields: object) -> ModelSettings:
    return ModelSettings.model_validate({"preset": preset, "name": name, **fields})


@dataclass
class Stage:
    """A registry over fake engines, and what can be done to it.

    Attributes:
        engines: Every engine that was loaded, in order.
        gate: Loading waits for it.
        errors: What loading a preset raises, by its name.
        reclaimed: How often memory was given back.
        common: The settings other than the models.
        batching: Batching settings of each loaded engine.
        lone: True if models have one more engine for lone requests.
        left_out: Shapes that are not timed.
    """

    names: tuple[str, ...] = ("one", "two")
    engines: list[FakeEngine] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    errors: dict[str, Exception] = field(default_factory=dict)
    reclaimed: int = 0
    common: dict[str, object] = field(default_factory=dict)
    batching: list[BatchingSettings] = field(default_factory=list)
    lone: bool = False
    left_out: set[BatchShape] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()
        self.metrics = Metrics("test")
        models = [model("start", name) for name in self.names]
        settings = Settings.model_validate({"limits": {"max_timeout_s": SOON_S}, **self.common, "models": models})
        log = structlog.get_logger()
        self.registry = ModelRegistry(settings.models)
        self.manager = build_manager(
            settings, self.registry, self.metrics, log, load=self.load, collect_and_trim=self.collect_and_trim
        )
        self.service = InferenceService(self.registry, text_encoder())

    def load(self, settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        self.batching.append(batching)
        self.gate.wait(SOON_S)
        if settings.preset in self.errors:
            raise self.errors[settings.preset]
        engine = FakeEngine(SHORT_SHAPES)
        self.engines.append(engine)
        loaded = loaded_model(engine)
        timings = {shape: seconds for shape, seconds in loaded.timings.items() if shape not in self.left_out}
        if not self.lone:
            return replace(loaded, timings=timings)
        lone = FakeEngine(SHORT_SHAPES)
        self.engines.append(lone)
        return replace(loaded, timings=timings, lone=lone, lone_timings=fake_timings(lone))

    def collect_and_trim(self) -> None:
        self.reclaimed += 1

    async def encode(self, name: str | None = "one") -> EncodeResult:
        tokens = TokenInput([np.array([1, 2], np.int64)])
        return await self.service.encode(EncodeRequest(tokens, model=name, outputs=frozenset({Output.MEAN})))

    @property
    def closed(self) -> list[bool]:
        """Of each engine."""
        return [engine.closed for engine in self.engines]

    def replaced(self) -> bool:
        """True if the first model has been replaced."""
        return self.registry.ready_model("one").settings.preset == "next"

    def counted(self, sample: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(sample, labels)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    await made.manager.load_all()
    yield made
    for engine in made.engines:
        engine.gate.set()
        engine.close_gate.set()
    made.manager.stop()
    await made.manager.close()


async def test_a_reload_puts_the_new_model_in_place(stage: Stage) -> None:
    before = stage.registry.ready_model("one")
    assert await stage.manager.reload(model("next")).finished(SOON_S)
    after = stage.registry.ready_model("one")
    assert after is not before
    assert after.settings.preset == "next"
    assert stage.closed == [True, False, False]
    status = stage.manager.status("one")
    assert (status.state, status.preset, status.change, status.reason) == (ModelState.READY, "next", None, "")
    assert stage.counted("electra_model_loads_total", model="one", outcome="ok") == 2
    assert stage.reclaimed == 1
    await stage.encode()
    assert len(stage.engines[2].batches) == 1


async def test_the_old_model_serves_and_the_process_stays_ready_while_the_new_one_loads(stage: Stage) -> None:
    stage.gate.clear()
    reload = stage.manager.reload(model("next"))
    assert not await reload.finished(0)
    assert stage.manager.status("one").change is Change.RELOAD
    assert stage.manager.status("one").state is ModelState.READY
    assert stage.registry.ready
    await stage.encode()
    assert len(stage.engines[0].batches) == 1
    stage.gate.set()
    assert await reload.finished(SOON_S)


async def test_a_request_is_served_by_the_model_that_it_found(stage: Stage) -> None:
    stage.engines[0].gate.clear()
    request = asyncio.create_task(stage.encode())
    await until(lambda: stage.registry.ready_model("one").requests.count == 1)
    reload = stage.manager.reload(model("next"))
    await until(stage.replaced)
    await stage.encode()  # the next one has the new model, and does not wait for the old one
    assert len(stage.engines[2].batches) == 1
    assert not await reload.finished(0)
    assert stage.closed == [False, False, False]
    stage.engines[0].gate.set()
    await request
    assert await reload.finished(SOON_S)
    assert stage.closed == [True, False, False]
    assert len(stage.engines[0].batches) == 1


async def test_a_request_that_has_found_its_model_but_is_not_queued_is_served(stage: Stage) -> None:
    found = stage.registry.ready_model("one")
    with found.requests:  # as while its text is tokenized
        reload = stage.manager.reload(model("next"))
        await until(lambda: stage.registry.ready_model("one") is not found)
        assert not await reload.finished(0)
        (row,) = await found.batcher.submit([encoding(1, 2)], frozenset({Output.MEAN}))
        assert row.get(Output.MEAN)[0] == 1.5
        assert len(stage.engines[0].batches) == 1
    assert await reload.finished(SOON_S)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PresetError("head \ud800"), r"head \ud800"),
        (PresetError("next: its weights\nare cut short"), "next: its weights are cut short"),
        (RuntimeError("out of kernels"), "RuntimeError: out of kernels"),
        (MemoryError(), "MemoryError: MemoryError"),
    ],
)
async def test_a_reload_that_fails_leaves_what_is_there(stage: Stage, error: Exception, reason: str) -> None:
    stage.errors["next"] = error
    before = stage.registry.ready_model("one")
    with pytest.raises(ModelLoadFailed) as failure:
        await stage.manager.reload(model("next")).finished(SOON_S)
    assert failure.value.message == reason
    assert stage.registry.ready_model("one") is before
    assert stage.registry.ready
    status = stage.manager.status("one")
    assert (status.state, status.preset, status.change, status.reason) == (ModelState.READY, "start", None, reason)
    assert stage.counted("electra_model_loads_total", model="one", outcome="failed") == 1
    assert stage.counted("electra_model_ready", model="one") == 1
    await stage.encode()
    assert await stage.manager.reload(model("start")).finished(SOON_S)
    assert stage.manager.status("one").reason == ""


async def test_a_model_is_loaded_under_a_new_name(stage: Stage) -> None:
    stage.gate.clear()
    load = stage.manager.load(model("next", "three"))
    assert stage.manager.status("three").state is ModelState.LOADING
    assert stage.counted("electra_model_ready", model="three") == 0
    with pytest.raises(ModelNotReady):
        await stage.encode("three")
    assert stage.registry.ready
    stage.gate.set()
    assert await load.finished(SOON_S)
    await stage.encode("three")
    assert [info.name for info in stage.registry.infos()] == ["one", "two", "three"]
    assert stage.counted("electra_model_ready", model="three") == 1


async def test_a_new_model_that_cannot_be_loaded_is_listed_and_does_no_harm(stage: Stage) -> None:
    stage.errors["bad"] = PresetError("no such preset")
    with pytest.raises(ModelLoadFailed, match="no such preset"):
        await stage.manager.load(model("bad", "three")).finished(SOON_S)
    status = stage.manager.status("three")
    assert (status.state, status.reason) == (ModelState.FAILED, "no such preset")
    assert stage.registry.ready
    with pytest.raises(ModelNotReady, match="three is failed"):
        await stage.encode("three")
    assert await stage.manager.load(model("good", "three")).finished(SOON_S)  # its name is not taken
    assert stage.manager.status("three").reason == ""


async def test_a_model_that_failed_can_be_reloaded_and_unloaded(stage: Stage) -> None:
    stage.errors["bad"] = PresetError("no such preset")
    for name in ("three", "four"):
        with pytest.raises(ModelLoadFailed):
            await stage.manager.load(model("bad", name)).finished(SOON_S)
    stage.gate.clear()
    reload = stage.manager.reload(model("good", "three"))
    assert stage.manager.status("three").state is ModelState.LOADING
    stage.gate.set()
    assert await reload.finished(SOON_S)
    assert await stage.manager.unload("four").finished(SOON_S)
    assert [info.name for info in stage.registry.infos()] == ["one", "two", "three"]


async def test_an_unloaded_model_finishes_admitted_requests_and_is_removed(stage: Stage) -> None:
    stage.engines[0].gate.clear()
    request = asyncio.create_task(stage.encode())
    await until(lambda: stage.registry.ready_model("one").requests.count == 1)
    unload = stage.manager.unload("one")
    assert stage.manager.status("one").state is ModelState.UNLOADING
    with pytest.raises(ModelNotReady, match="one is unloading"):
        await stage.encode()
    assert not await unload.finished(0)
    stage.engines[0].gate.set()
    await request
    assert await unload.finished(SOON_S)
    assert stage.engines[0].closed
    with pytest.raises(ModelNotFound):
        await stage.encode()
    assert stage.registry.label("one") == ""
    assert stage.counted("electra_model_ready", model="one") is None
    assert stage.registry.ready
    assert stage.reclaimed == 1


async def test_the_last_model_is_not_unloaded(stage: Stage) -> None:
    first = stage.manager.unload("one")
    with pytest.raises(Conflict, match="unload model two: it is the only one that is ready"):
        stage.manager.unload("two")
    assert await first.finished(SOON_S)
    with pytest.raises(Conflict):
        stage.manager.unload("two")
    await stage.encode("two")


async def test_a_name_that_is_taken_is_a_conflict(stage: Stage) -> None:
    with pytest.raises(Conflict, match="load model one: it is ready"):
        stage.manager.load(model("next"))


async def test_an_alias_finds_its_model_wherever_a_name_is_taken(stage: Stage) -> None:
    assert await stage.manager.load(model("next", "three", aliases=["3", "tres"])).finished(SOON_S)
    for alias in ("3", "tres"):
        assert (await stage.encode(alias)).model == "three"
        assert stage.registry.label(alias) == "three"
        assert stage.service.model(alias).aliases == ("3", "tres")
        assert stage.manager.status(alias).name == "three"
        assert stage.manager.settings(alias).name == "three"
    assert stage.counted("electra_model_ready", model="3") is None
    assert await stage.manager.unload("tres").finished(SOON_S)
    for name in ("three", "3", "tres"):
        with pytest.raises(ModelNotFound):
            await stage.encode(name)
        assert stage.registry.label(name) == ""


async def test_a_reload_changes_aliases_when_it_is_done(stage: Stage) -> None:
    assert await stage.manager.reload(model("start", aliases=["old", "kept"])).finished(SOON_S)
    stage.gate.clear()
    reload = stage.manager.reload(model("next", aliases=["kept", "new"]))
    assert [(await stage.encode(name)).model for name in ("one", "old", "kept")] == ["one"] * 3
    with pytest.raises(ModelNotFound):
        await stage.encode("new")
    stage.gate.set()
    assert await reload.finished(SOON_S)
    assert [(await stage.encode(name)).model for name in ("one", "kept", "new")] == ["one"] * 3
    with pytest.raises(ModelNotFound):
        await stage.encode("old")


@pytest.mark.parametrize("taken", ["one", "uno", "new"])
async def test_a_name_that_another_model_has_or_will_have_is_a_conflict(stage: Stage, taken: str) -> None:
    assert await stage.manager.reload(model("start", aliases=["uno"])).finished(SOON_S)
    stage.gate.clear()
    reload = stage.manager.reload(model("next", aliases=["uno", "new"]))
    with pytest.raises(Conflict):
        stage.manager.load(model("next", "three", aliases=["3", taken]))
    with pytest.raises(Conflict):
        stage.manager.load(model("next", taken))
    with pytest.raises(Conflict, match=f"{taken} must be free; it is a name or an alias of model one"):
        stage.manager.reload(model("next", "two", aliases=[taken]))
    assert [info.name for info in stage.registry.infos()] == ["one", "two"]
    assert stage.manager.status("two").change is None
    stage.gate.set()
    assert await reload.finished(SOON_S)


async def test_a_reload_that_fails_gives_its_new_names_back(stage: Stage) -> None:
    stage.errors["bad"] = PresetError("no such preset")
    with pytest.raises(ModelLoadFailed):
        await stage.manager.reload(model("bad", aliases=["new"])).finished(SOON_S)
    with pytest.raises(ModelNotFound):
        await stage.encode("new")
    assert await stage.manager.reload(model("next", "two", aliases=["new"])).finished(SOON_S)
    assert (await stage.encode("new")).model == "two"


async def test_a_load_that_failed_keeps_its_names_until_it_is_loaded_again(stage: Stage) -> None:
    stage.errors["bad"] = PresetError("no such preset")
    with pytest.raises(ModelLoadFailed):
        await stage.manager.load(model("bad", "three", aliases=["3"])).finished(SOON_S)
    with pytest.raises(ModelNotReady, match="three is failed"):
        await stage.encode("3")
    with pytest.raises(Conflict):
        stage.manager.load(model("next", "four", aliases=["3"]))
    assert await stage.manager.load(model("next", "three", aliases=["3"])).finished(SOON_S)
    assert (await stage.encode("3")).model == "three"


async def test_a_model_takes_one_change_at_a_time(stage: Stage) -> None:
    stage.gate.clear()
    reload, load = stage.manager.reload(model("next")), stage.manager.load(model("next", "three"))
    with pytest.raises(Conflict, match="one has another change in progress: reload"):
        stage.manager.reload(model("next"))
    for name in ("one", "three"):
        with pytest.raises(Conflict):
            stage.manager.unload(name)
    with pytest.raises(Conflict):
        stage.manager.load(model("next", "three"))
    stage.gate.set()
    assert await reload.finished(SOON_S)
    assert await load.finished(SOON_S)


async def test_loads_are_one_after_the_other(stage: Stage) -> None:
    stage.engines[0].gate.clear()
    request = asyncio.create_task(stage.encode())
    await until(lambda: stage.registry.ready_model("one").requests.count == 1)
    first, second = stage.manager.reload(model("next")), stage.manager.reload(model("next", "two"))
    await until(stage.replaced)
    assert not await second.finished(0)
    assert len(stage.engines) == 3, "the second load waits until the first one's predecessor is closed"
    stage.engines[0].gate.set()
    await request
    assert await first.finished(SOON_S)
    assert await second.finished(SOON_S)


@pytest.mark.parametrize("change", ["reload", "unload"])
async def test_an_engine_that_hangs_in_close_blocks_no_later_load(
    change: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("electra_serve.batching.batcher.ENGINE_CLOSE_S", 0.05)
    stage.engines[0].close_gate.clear()
    first = stage.manager.unload("one") if change == "unload" else stage.manager.reload(model("next"))
    assert await first.finished(SOON_S)
    assert await stage.manager.load(model("next", "three")).finished(SOON_S)
    await stage.encode("three")
    assert (stage.registry.ready, stage.registry.failure) == (True, "")
    assert not stage.engines[0].closed
    assert await stage.manager.close(SOON_S), "it is not closed again at the end"


@pytest.mark.parametrize("change", ["reload", "unload"])
async def test_there_must_be_a_model_to_change(stage: Stage, change: str) -> None:
    with pytest.raises(ModelNotFound, match="must be one of one, two"):
        stage.manager.unload("none") if change == "unload" else stage.manager.reload(model("next", "none"))


async def test_limits_that_the_transports_do_not_take_are_rejected(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="at most 256") as rejection:
        stage.manager.reload(model("next", limits={"max_sequences": 257}))
    assert rejection.value.field == "limits"
    with pytest.raises(InvalidInput, match="must not exceed batching"):
        stage.manager.load(model("next", "three", batching={"max_queue_sequences": 255}))
    assert [info.name for info in stage.registry.infos()] == ["one", "two"]


async def test_what_a_model_s_own_settings_leave_out_is_common_at_run_time_too() -> None:
    stage = Stage(
        common={"limits": {"max_text_characters": 7, "max_sequences": 9}, "batching": {"recorded_batches": 3}}
    )
    await stage.manager.load_all()
    own: dict[str, Any] = {"limits": {"max_timeout_s": 2.5}, "batching": {"max_batch_tokens": 99}}
    assert await stage.manager.load(model("next", "three", **own)).finished(SOON_S)
    assert await stage.manager.reload(model("next", **own)).finished(SOON_S)
    for name in ("one", "three"):
        served = stage.registry.ready_model(name)
        assert (served.text_limits.max_characters, served.input_limits.max_sequences) == (7, 9)
        assert served.max_timeout_s == 2.5
        assert (stage.batching[-1].recorded_batches, stage.batching[-1].max_batch_tokens) == (3, 99)
    await stage.manager.close()


async def test_nothing_is_changed_before_the_start_is_over_nor_after_the_end_has_begun() -> None:
    stage = Stage()
    with pytest.raises(ModelNotReady):
        stage.manager.reload(model("next"))
    await stage.manager.load_all()
    stage.manager.stop()
    with pytest.raises(ShuttingDown):
        stage.manager.unload("one")
    await stage.manager.close()


async def test_a_stop_aborts_operations_in_progress_and_loses_no_request() -> None:
    stage = Stage()
    await stage.manager.load_all()
    stage.engines[0].gate.clear()
    request = asyncio.create_task(stage.encode())
    await until(lambda: bool(stage.registry.ready_model("one").requests.count))
    replaced = stage.manager.reload(model("next"))
    await until(stage.replaced)
    waiting = stage.manager.reload(model("next", "two"))
    stage.manager.stop()
    for change in (replaced, waiting):
        with pytest.raises(ShuttingDown):
            await change.finished(SOON_S)
    stage.engines[0].gate.set()
    await request
    await stage.manager.close()
    assert all(engine.closed for engine in stage.engines)


async def test_who_asked_may_leave(stage: Stage) -> None:
    stage.gate.clear()
    asking = asyncio.create_task(stage.manager.reload(model("next")).finished(SOON_S))
    await asyncio.sleep(0)
    asking.cancel()
    stage.gate.set()
    await until(stage.replaced)


async def test_the_model_that_was_alone_need_not_be_named_whatever_comes() -> None:
    stage = Stage(names=("one",))
    await stage.manager.load_all()
    assert await stage.manager.load(model("next", "two")).finished(SOON_S)
    assert stage.registry.ready_model(None).name == "one"
    assert stage.registry.label(None) == "one"
    assert await stage.manager.unload("one").finished(SOON_S)
    assert stage.registry.ready_model(None).name == "two"
    await stage.manager.close()


async def test_timings_are_kept_where_nothing_but_the_weights_is_new(stage: Stage) -> None:
    quiet = stage.registry.ready_model("one").loaded.timings
    assert await stage.manager.reload(model("next")).finished(SOON_S)
    assert stage.registry.ready_model("one").loaded.timings is quiet
    assert await stage.manager.reload(model("next", threads=3)).finished(SOON_S)
    assert stage.registry.ready_model("one").loaded.timings is not quiet


@pytest.mark.parametrize("lone_before", [True, False])
async def test_a_reload_may_add_or_remove_the_engine_with_all_cores(stage: Stage, lone_before: bool) -> None:
    for lone in (lone_before, not lone_before):
        stage.lone = lone
        assert await stage.manager.reload(model("next")).finished(SOON_S)
        loaded = stage.registry.ready_model("one").loaded
        assert bool(loaded.lone) == bool(loaded.lone_timings) == lone
        await stage.encode()


async def test_a_longer_target_time_adds_timings_at_a_reload(stage: Stage) -> None:
    stage.left_out = {BatchShape(4, 16)}
    assert await stage.manager.reload(model("next", threads=3)).finished(SOON_S)
    before = stage.registry.ready_model("one").loaded.timings
    stage.left_out = set()
    assert await stage.manager.reload(model("next", threads=3)).finished(SOON_S)
    assert stage.registry.ready_model("one").loaded.timings.keys() == before.keys() | {BatchShape(4, 16)}


async def test_nothing_holds_what_was_replaced() -> None:
    stage = Stage()
    await stage.manager.load_all()
    gone = weakref.ref(stage.registry.ready_model("one").batcher)
    engine = weakref.ref(stage.engines.pop(0))
    await stage.encode()
    assert await stage.manager.reload(model("next")).finished(SOON_S)

    def released() -> bool:
        gc.collect()
        return gone() is None and engine() is None

    await until(released)  # the engine's thread may have a moment left
    await stage.manager.close()


async def test_the_end_closes_a_model_that_is_being_unloaded_once(stage: Stage) -> None:
    stage.engines[0].gate.clear()
    request = asyncio.create_task(stage.encode())
    await until(lambda: stage.registry.ready_model("one").batcher.running_sequences == 1)
    stage.manager.unload("one")
    await asyncio.sleep(0)  # it waits for its user by now
    assert len(stage.registry.batchers) == 2
    stage.manager.stop()
    closing = asyncio.create_task(stage.manager.close())
    stage.engines[0].gate.set()
    async with asyncio.timeout(SOON_S):
        await request
        assert await closing
    assert stage.closed == [True, True]


async def test_the_stop_closes_a_model_whose_unload_was_aborted_while_it_closed(stage: Stage) -> None:
    stage.engines[0].close_gate.clear()
    stage.manager.unload("one")
    await until(lambda: stage.engines[0].closings == 1)
    stage.manager.stop()
    closing = asyncio.create_task(stage.manager.close())
    await until(lambda: stage.engines[1].closed)
    stage.engines[0].close_gate.set()
    async with asyncio.timeout(SOON_S):
        assert await closing
    assert [engine.closings for engine in stage.engines] == [1, 1]


async def test_the_stop_waits_for_a_model_whose_reload_was_aborted_while_it_closed(stage: Stage) -> None:
    stage.engines[0].close_gate.clear()
    stage.manager.reload(model("next"))
    await until(lambda: stage.engines[0].closings == 1)
    stage.manager.stop()
    assert not await stage.manager.close(within_s=0.2)
    stage.engines[0].close_gate.set()
    await until(lambda: not any(thread.name == "engine-one-0" for thread in threading.enumerate()))
