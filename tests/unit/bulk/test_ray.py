"""The encoder of Ray batches, without Ray; tests/conformance/test_ray.py has the real one."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from electra_serve.bulk import encoder as tables
from electra_serve.bulk import ray as module
from electra_serve.bulk.options import Columns, EncodeOptions
from electra_serve.bulk.ray import Encoder
from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import BulkError, SettingsError, StartupError
from electra_serve.settings.schema import BatchingSettings, ModelSettings, Settings
from electra_serve.tensors import Output, Truncation
from tests.unit.bulk.support import PRESET, known_vector, load, texts, vectors
from tests.unit.bulk.test_encoder import REPLACED, SEQUENCE, headed

IDS = {"token_ids_column": "ids", "segment_ids_column": "segments"}
WIDTH = PRESET.config.hidden_dim
ROWS = ["first text", None, "a third one", "word " * 600]


def objects(*values: object) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def make(**options: Any) -> Encoder:
    return Encoder("electra_demo", **{"load": load, **options})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_both_kinds_of_batch_have_the_vectors_and_keep_their_columns(dtype: Any) -> None:
    encoder = make(dtype=dtype)
    rows, images = texts(40), np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
    arrow = encoder(pa.table({"id": pa.array(range(40), pa.int32()), "text": rows, "more": [{"x": 1}] * 40}))
    arrays: dict[str, Any] = encoder({"id": np.arange(40), "image": images, "text": np.array(rows)})
    assert arrow.column_names == ["id", "text", "more", "embedding", "error"]
    assert list(arrays) == ["id", "image", "text", "embedding", "error"]
    assert str(arrow.schema.field("embedding").type.value_type) == {"float32": "float", "float16": "halffloat"}[dtype]
    assert arrays["image"] is images
    assert (arrays["embedding"].dtype, arrays["embedding"].shape) == (np.dtype(dtype), (40, WIDTH))
    assert np.array_equal(arrays["embedding"].astype(np.float32), vectors(arrow))
    expected = np.stack([known_vector(text) for text in rows])
    assert np.allclose(arrays["embedding"], expected, rtol=1e-6 if dtype == "float32" else 1e-3)


def test_rejected_rows_stay_with_their_reason() -> None:
    encoder = make()
    arrow, arrays = encoder(pa.table({"text": ROWS})), encoder({"text": objects(*ROWS)})
    assert arrow["embedding"].is_valid().to_pylist() == [True, False, True, False]
    assert np.isnan(arrays["embedding"]).all(axis=1).tolist() == [False, True, False, True]
    assert arrays["error"].tolist() == arrow["error"].to_pylist()
    assert arrays["error"].tolist()[:3] == [None, "the value must not be null; got null", None]
    assert "at most 512 ids" in arrays["error"][3]


@pytest.mark.parametrize("truncate", [True, "right", Truncation.LONGEST_FIRST])
def test_long_texts_can_be_cut(truncate: bool | str) -> None:
    assert make(truncate=truncate)(pa.table({"text": ROWS}))["error"].null_count == 3


def test_strict_fails_on_a_rejected_row() -> None:
    encoder = make(strict=True)
    assert encoder(pa.table({"text": ROWS[:1]})).num_rows == 1
    with pytest.raises(BulkError, match=r"^a row was rejected: the value must not be null; got null$"):
        encoder(pa.table({"text": ROWS}))


def test_pairs_prompts_and_settings_are_those_of_the_command() -> None:
    settings: list[ModelSettings] = []

    def note(model: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        settings.append(model)
        return load(model, batching)

    model = {"preset": "electra_demo", "engine": "openvino", "embedding": {"pooling": "cls", "dimensions": [8]}}
    encoder = Encoder(model, text_column="a", text_pair_column="b", normalize=True, load=note)
    batch = encoder({"a": objects("one"), "b": objects("two")})
    options = EncodeOptions()
    with tables.Encoder.load(settings[0], Columns("a", "b"), options, Settings(), load=load) as expected:
        table = expected.encode(pa.table({"a": ["one"], "b": ["two"]}))
    assert np.array_equal(batch["embedding"], vectors(table))
    assert np.linalg.norm(batch["embedding"], axis=1) == pytest.approx(1)
    [given] = settings
    assert given.embedding is not None
    assert (given.engine, given.embedding.pooling, given.embedding.dimensions) == ("openvino", "cls", (8,))


@pytest.mark.parametrize("same_length", [True, False])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16])
def test_token_ids_are_rows_of_arrays(same_length: bool, kind: Any) -> None:
    rows = [[5, 6, 7], [8, 9, 10]] if same_length else [[5, 6, 7], [8]]
    ids = np.array(rows, kind) if same_length else objects(*(np.array(row, kind) for row in rows))
    zeros = np.zeros_like(ids) if same_length else objects(*(np.zeros(len(row), kind) for row in rows))
    batch = make(**IDS, outputs=("mean_output",))({"ids": ids, "segments": zeros})
    assert batch["mean_output"][:, 0].tolist() == [6.0, 9.0 if same_length else 8.0]


def test_hidden_states_have_the_length_of_their_row() -> None:
    batch = make(outputs=("sequence_output",))({"text": objects(*ROWS)})
    states = batch["sequence_output"]
    assert np.array_equal(states[0], known_vector("first text", Output.SEQUENCE))
    assert [row.shape for row in states[1::2]] == [(0, WIDTH)] * 2


def test_labels_are_lists() -> None:
    encoder = Encoder("x", token_ids_column="ids", top_k=2, load=headed(SEQUENCE))
    batch = encoder({"ids": objects([1, 2], None)})
    assert list(batch) == ["ids", "labels", "scores", "error"]
    assert batch["labels"].tolist() == [["neither", "good"], []]
    spans = Encoder("x", token_ids_column="ids", load=headed(REPLACED))({"ids": np.array([[1, 2], [3, 4]])})
    assert spans["starts"].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("outputs", [(), ("sequence_output",), ("embedding", "cls_output")])
def test_a_batch_without_rows_has_the_columns(outputs: tuple[str, ...]) -> None:
    encoder = make(outputs=outputs)
    names = ["text", *(outputs or ("embedding",)), "error"]
    assert encoder(pa.table({"text": pa.array([], pa.string())})).column_names == names
    batch = encoder({"text": objects()})
    assert list(batch) == names
    assert {len(column) for column in batch.values()} == {0}


@pytest.mark.parametrize("kind", [pa.table, dict])
@pytest.mark.parametrize("name", ["embedding", "error"])
def test_a_column_with_the_name_of_an_output_is_an_error(kind: Any, name: str) -> None:
    with pytest.raises(BulkError, match=f"must not have a column {name}, the name of an output; rename or drop it"):
        make()(kind({"text": objects("a"), name: objects("b")}))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([], "batch_format must be numpy or pyarrow; got a batch of type list"),
        ({"other": objects("a")}, "the table must have a column text; it has "),
        ({"text": objects("a", 5)}, "cannot read column text of a batch: "),
        ({"text": np.array([1, 2])}, "column text must have texts; got int64"),
    ],
)
def test_batches_that_do_not_fit(batch: Any, message: str) -> None:
    with pytest.raises(BulkError, match=message) as caught:
        make()(batch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncate": "sideways"}, "truncate must be a boolean or one of none, right, .*; got sideways"),
        ({"dtype": "int8"}, "dtype must be float32 or float16; got int8"),
        ({"outputs": ("labels",)}, "head is none, must be among"),
        ({"pooling": "max"}, "pooling"),
        ({"model": {"preset": "electra_demo", "motor": "x"}}, "motor"),
        ({"model": ""}, "preset"),
        ({"segment_ids_column": "s"}, "segment ids and masks need a column of token ids"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    model = options.pop("model", "electra_demo")
    with pytest.raises(StartupError, match=message) as caught:
        Encoder(model, load=load, **options)
    assert "\n" not in str(caught.value)


def test_hub_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRA_HUB__OFFLINE", "maybe")
    with pytest.raises(SettingsError, match="ELECTRA_HUB__OFFLINE"):
        make()


class Context:
    """Ray's context in an actor, or outside of one."""

    def __init__(self, resources: dict[str, float], actor: str | None = "actor") -> None:
        self.resources, self.actor = resources, actor

    def get_assigned_resources(self) -> dict[str, float]:
        return self.resources

    def get_actor_id(self) -> str | None:
        return self.actor


@pytest.mark.parametrize(
    ("context", "model", "expected"),
    [
        (Context({"CPU": 1.0}), {}, ("cpu", 1, 1)),
        (Context({"CPU": 4.0}), {}, ("cpu", 4, 1)),
        (Context({"CPU": 32.0}), {}, ("cpu", 7, 4)),
        (Context({"CPU": 0.5}), {}, ("cpu", 1, 1)),
        (Context({"CPU": 4.0}), {"threads": 2}, ("cpu", 0, 2)),
        (Context({"CPU": 4.0}), {"engine": "jax"}, ("cpu", 0, 0)),
        (Context({"CPU": 4.0, "GPU": 1.0}), {}, ("auto", 0, 0)),
        (Context({"CPU": 4.0}), {"device": "gpu:1"}, ("gpu:1", 0, 0)),
        (Context({"CPU": 4.0}, actor=None), {}, ("auto", 0, 0)),
        (None, {}, ("auto", 0, 0)),
    ],
)
def test_engines_fit_the_resources_of_the_actor(
    context: Context | None, model: dict[str, Any], expected: tuple[str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = SimpleNamespace(is_initialized=lambda: context is not None, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    loaded: list[ModelSettings] = []

    def note(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        loaded.append(settings)
        return load(settings, batching)

    Encoder({"preset": "electra_demo", **model}, load=note)
    [settings] = loaded
    assert (settings.device, settings.replicas, settings.threads) == expected


def test_it_needs_no_ray() -> None:
    code = f"import sys; import {module.__name__}; print('ray' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=120).strip() == "False"
