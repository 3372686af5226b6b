"""The encoder of tables: types of the outputs, options, labels, and rejected rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.stand_in.answers import HIDDEN_DIM
from electra_serve.bulk.encoder import Encoder
from electra_serve.bulk.options import Columns, EncodeOptions
from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import BulkError
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.loader import ModelLoader
from electra_serve.settings.schema import BatchingSettings, EmbeddingSettings, ModelSettings, Settings
from electra_serve.tensors import BatchShape, Output, Truncation
from tests.fakes import FAKE_SHAPES, FakeEngine, fake_timings, loaded_model
from tests.unit.bulk.support import PRESET, TOKENIZER, known_vector, load, make_encoder, texts, vectors

IDS = Columns(token_ids="ids", segment_ids="segments")


def encode(table: dict[str, Any], columns: Columns | None = None, **options: Any) -> pa.Table:
    with make_encoder(columns, EncodeOptions(**options)) as encoder:
        return encoder.encode(pa.table(table))


def headed(head: HeadConfig, *, text: bool = True) -> ModelLoader:
    """A loader of `electra_demo` with a head on an engine whose logits follow from the ids."""

    def load_headed(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        engine = FakeEngine(FAKE_SHAPES, head)
        base = loaded_model(engine)
        preset = replace(PRESET if text else base.preset, head=head)
        tokenizer = TOKENIZER if text else NoTokenizer("the preset has no tokenizer")
        return LoadedModel(preset, tokenizer, (engine,), fake_timings(engine))

    return load_headed


def label(head: HeadConfig, table: dict[str, Any], columns: Columns, *, text: bool = True, **options: Any) -> pa.Table:
    with Encoder.load("x", columns, EncodeOptions(**options), load=headed(head, text=text)) as encoder:
        return encoder.encode(pa.table(table))


@pytest.mark.parametrize("output", [Output.MEAN, Output.CLS, Output.POOLED, Output.EMBEDDING])
def test_vectors_of_the_engine_in_the_order_of_the_rows(output: Output) -> None:
    rows = texts(300)
    table = encode({"text": rows}, outputs=(output.value,))
    assert table.schema.field(output.value).type == pa.list_(pa.float32(), HIDDEN_DIM)
    assert table["error"].null_count == 300
    expected = [known_vector(text, output) for text in rows]
    assert np.abs(vectors(table, output.value) - np.stack(expected)).max() <= 1e-3  # of numbers up to 4,000


def test_hidden_states_are_lists_of_vectors() -> None:
    rows = texts(30)
    table = encode({"text": rows}, outputs=("sequence_output", "embedding"))
    assert table.column_names == ["sequence_output", "embedding", "error"]
    for states, text in zip(table["sequence_output"].to_pylist(), rows, strict=True):
        assert np.array_equal(states, known_vector(text, Output.SEQUENCE))


def test_masked_positions_of_hidden_states_are_zeros() -> None:
    columns = Columns(token_ids="ids", padding_mask="mask")
    table = {"ids": [[5, 6, 7, 8]], "mask": [[1, 1, 0, 0]]}
    [states] = encode(table, columns, outputs=("sequence_output",))["sequence_output"].to_pylist()
    assert [state[0] for state in states] == [5, 6, 0, 0]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("dtype", "kind"), [("float32", pa.float32()), ("float16", pa.float16())])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_type_pooling_and_normalization(normalize: bool, dtype: Any, kind: pa.DataType, pooling: Any) -> None:
    settings = ModelSettings(preset="electra_demo", embedding=EmbeddingSettings(pooling=pooling, normalize=normalize))
    with Encoder.load(settings, options=EncodeOptions(dtype=dtype), load=load) as encoder:
        table = encoder.encode(pa.table({"text": ["some text"]}))
    assert table.schema.field("embedding").type == pa.list_(kind, HIDDEN_DIM)
    expected = known_vector("some text", Output.MEAN if pooling == "mean" else Output.CLS)
    if normalize:
        expected = expected / np.linalg.norm(expected)
    tolerance = 1e-6 if dtype == "float32" else 1e-3
    assert np.allclose(vectors(table)[0], expected, rtol=tolerance)


def test_a_vector_of_zeros_stays_one() -> None:
    encoder_settings = ModelSettings(preset="x", embedding=EmbeddingSettings(normalize=True, pooling="cls"))
    with Encoder.load(encoder_settings, IDS, load=lambda *_: loaded_model()) as encoder:
        table = encoder.encode(pa.table({"ids": [[0], [3, 4]], "segments": [[0], [0, 0]]}))
    assert vectors(table).tolist() == [[0.0] * 4, [0.5] * 4]


def test_rejected_rows_keep_their_places_with_nulls_and_reasons() -> None:
    rows = ["good", None, "word " * 600, b"\xff", "fine"]
    encoded = [row.encode() if isinstance(row, str) else row for row in rows]
    table = encode({"text": pa.array(encoded, pa.binary()), "id": [1, 2, 3, 4, 5]}, Columns(id="id"))
    assert table.column_names == ["id", "embedding", "error"]
    assert table["id"].to_pylist() == [1, 2, 3, 4, 5]
    reasons = table["error"].to_pylist()
    assert [reason is None for reason in reasons] == [True, False, False, False, True]
    assert [row is None for row in table["embedding"].to_pylist()] == [reason is not None for reason in reasons]
    assert reasons[1] == "the value must not be null; got null"
    assert reasons[2].startswith("a text must have at most 512 ids unless truncation is allowed; got ")
    assert reasons[3] == "the text must be UTF-8; got other bytes"
    good = [known_vector("good"), known_vector("fine")]
    assert np.allclose(vectors(table.take([0, 4])), good)


def test_truncation_cuts_what_is_too_long() -> None:
    long = "word " * 600
    table = encode({"text": [long, "b"]}, truncation=Truncation.LONGEST_FIRST)
    assert table["error"].null_count == 2
    assert hasattr(TOKENIZER, "encode")
    [cut] = TOKENIZER.encode([long], max_length=512, truncation=Truncation.LONGEST_FIRST).token_ids
    assert vectors(table)[0][0] == pytest.approx(float(cut.mean()))


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([], "a sequence must have at least one id; got none"),
        ([9000], "token_ids must be from 0 to 7999; got 9000"),
        ([-1], "token_ids must be from 0 to 7999; got -1"),
        ([1] * 513, "a sequence must have at most 512 ids unless truncation is allowed; got 513"),
    ],
)
def test_token_ids_are_checked_row_by_row(ids: list[int], reason: str) -> None:
    table = encode({"ids": [[7, 8], ids], "segments": [[0, 1], [0] * len(ids)]}, IDS)
    assert table["error"].to_pylist() == [None, reason]


def test_a_text_with_too_many_characters_is_rejected() -> None:
    table = encode({"text": ["a" * 100_001]})
    assert table["error"].to_pylist() == ["a text must have at most 100000 characters; got 100001"]


def test_a_sequence_that_the_engine_fails_on_is_rejected() -> None:
    table = encode({"ids": [[7], [3990], [8], [3992, 5]]}, Columns(token_ids="ids"))
    assert table["error"].to_pylist() == [
        *(None, "the engine failed on this row"),
        *(None, "the model's output must be finite; got other numbers"),
    ]
    assert [row is None for row in table["embedding"].to_pylist()] == [False, True, False, True]


def test_an_empty_table_has_the_columns() -> None:
    table = encode({"text": pa.array([], pa.string())}, outputs=("embedding", "sequence_output"))
    assert (table.num_rows, table.column_names) == (0, ["embedding", "sequence_output", "error"])


def test_pairs_are_one_sequence() -> None:
    table = encode({"a": ["one"], "b": ["two"]}, Columns(text="a", text_pair="b"))
    assert hasattr(TOKENIZER, "encode")
    [ids] = TOKENIZER.encode([("one", "two")], max_length=512).token_ids
    assert vectors(table)[0][0] == pytest.approx(float(ids.mean()))


PROMPTS = EmbeddingConfig(prompts={"query": "query: ", "passage": "passage: "}, default_prompt="passage")


def with_prompts(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
    loaded = load(settings, batching)
    return replace(loaded, preset=replace(loaded.preset, embedding=PROMPTS))


@pytest.mark.parametrize(("name", "prefix"), [(None, "passage: "), ("query", "query: ")])
def test_prompts_are_those_of_the_model(name: str | None, prefix: str) -> None:
    with Encoder.load("x", options=EncodeOptions(prompt_name=name), load=with_prompts) as encoder:
        table = encoder.encode(pa.table({"text": ["a text"]}))
        assert encoder.describe()["model"]["prompt"] == prefix  # type: ignore[index]
    assert np.allclose(vectors(table)[0], known_vector(f"{prefix}a text"))


def test_prompts_are_for_embeddings_only() -> None:
    with Encoder.load("x", options=EncodeOptions(outputs=("mean_output",)), load=with_prompts) as encoder:
        table = encoder.encode(pa.table({"text": ["a text"]}))
    assert np.allclose(vectors(table, "mean_output")[0], known_vector("a text"))


SEQUENCE = HeadConfig("sequence_classification", ("bad", "good", "neither"), "softmax")
TOKENS = HeadConfig("token_classification", ("O", "X"), "softmax")
QUESTIONS = HeadConfig("question_answering", ("start", "end"), "softmax")
REPLACED = HeadConfig("replaced_token_detection", ("replaced",), "sigmoid")


def test_labels_of_sequences_are_sorted_by_score() -> None:
    table = label(SEQUENCE, {"ids": [[1, 2], [3], None]}, Columns(token_ids="ids"))
    assert table.column_names == ["labels", "scores", "error"]
    assert table["labels"].to_pylist() == [["neither", "good", "bad"], ["neither", "good", "bad"], None]
    scores = table["scores"].to_pylist()
    powers = np.exp([3.0, 2.0, 1.0])
    assert np.allclose(scores[0], powers / powers.sum())


def test_top_k_labels_and_other_outputs() -> None:
    outputs = ("labels", "logits", "embedding")
    table = label(SEQUENCE, {"ids": [[1, 2], [3]]}, Columns(token_ids="ids"), text=False, top_k=1, outputs=outputs)
    assert table["labels"].to_pylist() == [["neither"], ["neither"]]
    assert table["logits"].to_pylist() == [[1, 2, 3], [3, 6, 9]]
    assert vectors(table)[:, 0].tolist() == [1.5, 3.0]


def test_labels_of_tokens_are_spans_of_characters() -> None:
    table = label(TOKENS, {"text": ["some words", None, "more"]}, Columns())
    assert table.column_names == ["labels", "scores", "starts", "ends", "texts", "parts", "error"]
    first, _, last = table.to_pylist()
    assert (first["labels"], first["texts"], first["starts"], first["ends"], first["parts"]) == (
        *(["X"], ["some words"], [0], [10], [0]),
    )
    assert last["texts"] == ["more"]


def test_labels_of_token_ids_are_spans_of_positions() -> None:
    table = label(REPLACED, {"ids": [[1, 2]]}, Columns(token_ids="ids"))
    [row] = table.to_pylist()
    assert (row["starts"], row["ends"], row["texts"]) == ([0, 1], [1, 2], [None, None])
    assert np.allclose(row["scores"], 1 / (1 + np.exp([-1.0, -2.0])))


def test_spans_of_long_contexts_come_from_windows() -> None:
    columns = Columns(text="question", text_pair="context")
    contexts = ["short context", "many words " * 900]
    table = label(QUESTIONS, {"question": ["what"] * 2, "context": contexts}, columns, top_k=2)
    for row, context in zip(table.to_pylist(), contexts, strict=True):
        assert row["error"] is None
        assert 1 <= len(row["texts"]) <= 2
        for start, end, text in zip(row["starts"], row["ends"], row["texts"], strict=True):
            assert context[start:end] == text


def test_contexts_of_token_ids_need_segment_1() -> None:
    table = label(QUESTIONS, {"ids": [[1, 2, 3], [1, 2]], "segments": [[0, 1, 1], [0, 0]]}, IDS)
    reasons = table["error"].to_pylist()
    assert reasons == [None, "question answering needs a context, ids of segment 1; got none"]


def fails(build: Callable[[], object], message: str) -> None:
    with pytest.raises(BulkError, match=message):
        build()


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ({"outputs": ("labels",)}, Columns(), "head is none, must be among"),
        ({"outputs": ("x",)}, Columns(), "must be among .*embedding, each once; got x"),
        ({"outputs": ("embedding", "embedding")}, Columns(), "each once"),
        ({"outputs": ("mean_output",), "prompt_name": "q"}, Columns(), "a prompt needs texts and the output"),
        ({"prompt_name": "q"}, Columns(token_ids="t"), "a prompt needs texts"),
        ({"prompt_name": "q"}, Columns(), "prompt_name must be absent"),
        ({"top_k": 1}, Columns(), "top_k needs the output labels"),
        ({"truncation": Truncation.ONLY_SECOND}, Columns(token_ids="t"), "only_second needs pairs of texts"),
    ],
)
def test_options_that_do_not_fit_the_model(options: dict[str, Any], columns: Columns, message: str) -> None:
    fails(lambda: make_encoder(columns, EncodeOptions(**options)), message)


@pytest.mark.parametrize(
    ("head", "options", "columns", "message"),
    [
        (SEQUENCE, {"top_k": 0}, Columns(), "top_k must be from 1"),
        (TOKENS, {"top_k": 1}, Columns(), "options of a token_classification model"),
        (QUESTIONS, {}, Columns(), "question answering needs a column of questions and one of contexts"),
        (QUESTIONS, {"outputs": ("labels", "embedding")}, Columns(text_pair="b"), "must be the only output"),
        (QUESTIONS, {"truncation": Truncation.RIGHT}, Columns(text_pair="b"), "truncation must be none"),
    ],
)
def test_options_that_do_not_fit_the_head(
    head: HeadConfig, options: dict[str, Any], columns: Columns, message: str
) -> None:
    fails(lambda: Encoder.load("x", columns, EncodeOptions(**options), load=headed(head)), message)


def test_a_model_without_a_tokenizer_reads_ids_only() -> None:
    fails(lambda: Encoder.load("x", load=lambda *_: loaded_model()), "fake reads no text: the preset has no tokenizer")


def test_a_table_without_the_column_is_an_error() -> None:
    fails(lambda: encode({"other": ["a"]}), "the table must have a column text; it has other")


def test_the_engine_for_lone_requests_is_closed() -> None:
    lone = FakeEngine()

    def load_lone(_: ModelSettings, __: BatchingSettings) -> LoadedModel:
        loaded = loaded_model()
        return replace(loaded, lone=lone, lone_timings=fake_timings(lone))

    with Encoder.load("x", IDS, load=load_lone) as encoder:
        assert lone.closed
        [engine] = encoder.loaded.all_engines
    assert isinstance(engine, FakeEngine)
    assert engine.closed


def test_another_cost_table_plans_other_batches() -> None:
    def shapes(cheap: Sequence[int]) -> list[BatchShape]:
        engine = FakeEngine(FAKE_SHAPES)
        loaded = loaded_model(engine)
        with Encoder.load("x", IDS, service=Settings(), load=lambda *_: loaded) as encoder:
            encoder.use_timings({s: 0.001 if s.rows in cheap else 9.0 for s in engine.signature.shapes})
            encoder.encode(pa.table({"ids": [[1] * 9] * 9, "segments": [[0] * 9] * 9}))
        return [batch.shape for batch in engine.batches]

    assert {shape.rows for shape in shapes([1])} == {1}
    assert {shape.rows for shape in shapes([8])} != {1}
