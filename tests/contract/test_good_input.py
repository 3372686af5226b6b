"""The same request gets the same response on every transport, with the model's own outputs."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.tensors import DEFAULT_OUTPUTS, HEAD_OUTPUTS, Float32Array, Output, Truncation
from tests.contract.outcome import assert_same, succeeded
from tests.contract.query import Query, Rows, Wire
from tests.contract.sides import ALL_SIDES, NATIVE_SIDES, Side, connect
from tests.contract.stack import MAX_LENGTH, MAX_TEXT_CHARACTERS, TINY, Stack
from tests.fakes import FAKE_HIDDEN_DIM

ALL: Final = tuple(output for output in Output if output not in HEAD_OUTPUTS)
QUERIES: Final = {
    "one row": Query(token_ids=[[5, 6, 7]]),
    "rows of all lengths": Query(token_ids=[[1], [2, 3, 4, 5, 6, 7, 8, 9], [10, 11]]),
    "all outputs": Query(token_ids=[[5, 6], [7]], outputs=ALL),
    "segments": Query(token_ids=[[5, 6], [7, 8]], segment_ids=[[0, 1], [1, 1]], outputs=ALL),
    "a mask of ones": Query(token_ids=[[5, 6]], padding_mask=[[1, 1]], outputs=ALL),
    "a masked tail": Query(
        token_ids=[[5, 6, 0, 0], [7, 8, 9, 0]], padding_mask=[[1, 1, 0, 0], [1, 1, 1, 0]], outputs=ALL
    ),
    "a hole in the mask": Query(token_ids=[[5, 6, 7, 8]], padding_mask=[[1, 0, 0, 1]], outputs=ALL),
    "a masked first position": Query(token_ids=[[5, 6, 7]], padding_mask=[[0, 1, 0]], outputs=[Output.SEQUENCE]),
    "the longest row": Query(token_ids=[list(range(MAX_LENGTH))], outputs=ALL),
    "the most rows": Query(token_ids=[[1], [2], [3], [4]], outputs=ALL),
    "the highest id": Query(token_ids=[[99, 0]], outputs=ALL),
    **{f"{output} alone": Query(token_ids=[[5, 6], [7]], outputs=[output]) for output in ALL},
    "an output named twice": Query(token_ids=[[5]], outputs=[Output.CLS, Output.CLS]),
    "a row that is cut": Query(
        token_ids=[[1] * (MAX_LENGTH + 3), [2]],
        segment_ids=[[1] * (MAX_LENGTH + 3), [0]],
        padding_mask=[[1] * (MAX_LENGTH + 3), [1]],
        truncate=True,
        outputs=ALL,
    ),
}


@pytest.mark.parametrize("side", ALL_SIDES, indirect=True)
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
async def test_a_response_is_the_models_own(side: Side, loaded: Stack, query: Query) -> None:
    response = succeeded(await side.send(side.render(query)))

    assert query.token_ids is not None
    ids = [row[:MAX_LENGTH] for row in query.token_ids]
    mask = [row[:MAX_LENGTH] for row in query.padding_mask or [[1] * len(row) for row in ids]]
    assert (response.model, response.sequences, response.tokens) == (TINY, len(ids), sum(map(sum, mask)))
    assert response.truncated in (None, [len(row) > MAX_LENGTH for row in query.token_ids])
    expected = expected_outputs(ids, mask, frozenset(query.outputs or DEFAULT_OUTPUTS))
    assert_same(response.outputs, expected, padded=response.padded)
    assert loaded.counted(side.transport, "ok") == 1


async def test_segments_reach_the_engine(side: Side, loaded: Stack) -> None:
    succeeded(await side.send(side.render(Query(token_ids=[[5, 6, 7]], segment_ids=[[0, 1, 1]]))))
    batch = loaded.engine.batches[0]
    assert batch.segment_ids[batch.sequence_ids > 0].tolist() == [0, 1, 1]


async def test_a_masked_tail_costs_no_compute(side: Side, loaded: Stack) -> None:
    succeeded(await side.send(side.render(Query(token_ids=[[5, 6, 0, 0, 0]], padding_mask=[[1, 1, 0, 0, 0]]))))
    batch = loaded.engine.batches[0]
    assert batch.token_ids[batch.sequence_ids > 0].tolist() == [5, 6]


async def test_only_what_is_asked_for_is_computed(side: Side, loaded: Stack) -> None:
    succeeded(await side.send(side.render(Query(token_ids=[[5]], outputs=[Output.CLS]))))
    assert loaded.engine.requested == [frozenset({Output.CLS})]


@pytest.mark.parametrize(
    "texts",
    [
        ["the white rabbit"],
        [("a", "pair"), ("first of another", "second of it")],
        ["ÀÉÎ — naïve café"],
        [""],
        ["a" * MAX_TEXT_CHARACTERS],
    ],
    ids=["one", "pairs", "accents", "empty", "the longest"],
)
@pytest.mark.parametrize("side", ALL_SIDES, indirect=True)
async def test_text_is_encoded_as_the_tokenizer_has_it(
    side: Side, loaded: Stack, texts: list[str | tuple[str, str]]
) -> None:
    response = succeeded(await side.send(side.render(Query(text=texts, model=DEMO_ID, outputs=ALL))))

    tokenizer = load_tokenizer(resolve_preset(DEMO_ID, load_weights=False))
    assert not isinstance(tokenizer, NoTokenizer)
    ids = [row.tolist() for row in tokenizer.encode(texts, max_length=512).token_ids]
    assert (response.model, response.tokens) == (DEMO_ID, sum(map(len, ids)))
    assert response.truncated in (None, [False] * len(texts))
    expected = expected_outputs(ids, [[1] * len(row) for row in ids], frozenset(ALL))
    unit = np.full(FAKE_HIDDEN_DIM, FAKE_HIDDEN_DIM**-0.5, np.float32)  # the demo normalizes its embedding
    expected = {**expected, Output.EMBEDDING: [unit] * len(ids)}
    assert_same(response.outputs, expected, padded=response.padded)


@pytest.mark.parametrize("side", NATIVE_SIDES, indirect=True)
async def test_texts_alone_and_pairs_go_together(side: Side, loaded: Stack) -> None:
    texts: list[str | tuple[str, str]] = ["alone", ("first of a pair", "second of it")]
    together = succeeded(await side.send(side.render(Query(text=texts, model=DEMO_ID, outputs=ALL))))
    for index, text in enumerate(texts):
        alone = succeeded(await side.send(side.render(Query(text=[text], model=DEMO_ID, outputs=ALL))))
        assert_same({output: rows[index : index + 1] for output, rows in together.outputs.items()}, alone.outputs)


@pytest.mark.parametrize("name", ["rest", "base64"])
async def test_half_a_surrogate_pair_is_the_replacement_character(name: str, loaded: Stack) -> None:
    async with connect(loaded, name) as side:
        bodies = ('"a \\ude00", "b"', '"a \\ufffd", "b"')
        cut, replaced = [
            succeeded(await side.send(Wire(f'{{"model": "{DEMO_ID}", "text": [{texts}]}}'.encode())))
            for texts in bodies
        ]
    assert cut.tokens == replaced.tokens
    for ours, expected in zip(cut.outputs[Output.POOLED], replaced.outputs[Output.POOLED], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("side", NATIVE_SIDES, indirect=True)
async def test_a_text_that_is_cut_says_so(side: Side, loaded: Stack) -> None:
    query = Query(text=["a " * 600, "a"], model=DEMO_ID, truncate=True, outputs=[Output.SEQUENCE])
    response = succeeded(await side.send(side.render(query)))
    assert response.truncated == [True, False]
    assert [len(row) for row in response.outputs[Output.SEQUENCE]] == [512, 3]


@pytest.mark.parametrize(
    ("truncation", "lengths"),
    [(Truncation.LEFT, [8, 3]), (Truncation.ONLY_FIRST, [8, 3]), (Truncation.RIGHT, [8, 3])],
)
@pytest.mark.parametrize("side", NATIVE_SIDES, indirect=True)
async def test_ids_are_cut_at_the_side_that_is_named(
    side: Side, loaded: Stack, truncation: Truncation, lengths: list[int]
) -> None:
    query = Query(
        token_ids=[list(range(1, 12)), [1, 2, 3]], truncation=truncation, outputs=[Output.CLS, Output.SEQUENCE]
    )
    response = succeeded(await side.send(side.render(query)))
    assert response.truncated == [True, False]
    assert [len(row) for row in response.outputs[Output.SEQUENCE]] == lengths
    assert response.outputs[Output.CLS][0][0] == (4 if truncation is Truncation.LEFT else 1)


@pytest.mark.parametrize("truncation", list(Truncation)[1:])
@pytest.mark.parametrize("side", NATIVE_SIDES, indirect=True)
async def test_pairs_are_cut_by_the_rule_that_is_named(side: Side, loaded: Stack, truncation: Truncation) -> None:
    pair = ("a " * 290, "b " * 290)
    query = Query(text=[pair], model=DEMO_ID, truncation=truncation, outputs=[Output.CLS])
    assert succeeded(await side.send(side.render(query))).truncated == [True]
    segments = loaded.engines[DEMO_ID].batches[0].segment_ids[0].tolist()
    kept = {Truncation.ONLY_FIRST: 219, Truncation.ONLY_SECOND: 290}.get(truncation, 255)
    assert (len(segments), segments.index(1)) == (512, kept + 2)


async def test_a_pair_of_texts_gets_segments_0_and_1(side: Side, loaded: Stack) -> None:
    succeeded(await side.send(side.render(Query(text=[("a b", "c")], model=DEMO_ID))))
    batch = loaded.engines[DEMO_ID].batches[0]
    assert batch.segment_ids[batch.sequence_ids > 0].tolist() == [0, 0, 0, 0, 1, 1]


async def test_transports_agree_to_the_last_bit(stack: Stack) -> None:
    await stack.manager.load_all()
    query = Query(token_ids=[[97, 89, 83], [7, 11]], padding_mask=[[1, 1, 1], [1, 0]], outputs=ALL)
    responses = []
    for name in ALL_SIDES:
        async with connect(stack, name) as side:
            responses.append(succeeded(await side.send(side.render(query))))
    await stack.manager.close()
    for response in responses[1:]:
        assert_same(response.outputs, responses[0].outputs, padded=response.padded)


def expected_outputs(ids: Rows, mask: Rows, outputs: frozenset[Output]) -> dict[Output, list[Float32Array]]:
    """Returns the outputs of `FakeEngine`: each position has its own id in all H components."""
    rows = []
    for row, kept in zip(ids, mask, strict=True):
        hidden = np.repeat(np.array(row, np.float32)[:, None], FAKE_HIDDEN_DIM, axis=1)  # (T, H)
        attended = np.array(kept, np.float32)[:, None]  # (T, 1)
        rows.append(
            {
                Output.SEQUENCE: hidden * attended,
                Output.POOLED: hidden[0],
                Output.CLS: hidden[0],
                Output.MEAN: (hidden * attended).sum(axis=0) / attended.sum(),
                Output.EMBEDDING: (hidden * attended).sum(axis=0) / attended.sum(),
            }
        )
    return {output: [row[output] for row in rows] for output in Output if output in outputs}
