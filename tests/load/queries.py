"""Valid and invalid requests of hypothesis that both transports can express."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.tensors import Output
from tests.contract.query import Query

ids = st.integers(0, 7999) | st.sampled_from((-1, 8000, 2**31, -(2**63), 2**63 - 1))
good_ids = st.integers(0, 7999)
bits = st.integers(0, 1)
models = st.sampled_from((DEMO_ID, None)) | st.text(min_size=1, max_size=20)
outputs = st.none() | st.lists(st.sampled_from(Output), min_size=1, max_size=5)
texts = st.text(max_size=200) | st.text("abc ,.é漢", max_size=3000)


def rows(of: st.SearchStrategy[int], longest: int = 20) -> st.SearchStrategy[list[list[int]]]:
    """Makes sequences of numbers, some empty."""
    return st.lists(st.lists(of, max_size=longest), max_size=6)


@st.composite
def fitting(draw: st.DrawFn, token_ids: Sequence[Sequence[int]], of: st.SearchStrategy[int]) -> list[list[int]]:
    """Makes as many numbers as there are ids."""
    return [draw(st.lists(of, min_size=len(row), max_size=len(row))) for row in token_ids]


@st.composite
def of_ids(draw: st.DrawFn) -> Query:
    """Makes mostly valid requests; each part may be invalid by itself."""
    token_ids = draw(rows(good_ids) | rows(ids) | st.lists(st.lists(good_ids, min_size=500, max_size=530), max_size=2))
    return Query(
        token_ids=token_ids,
        segment_ids=draw(st.none() | fitting(token_ids, bits) | rows(st.integers(-1, 2))) or None,
        padding_mask=draw(st.none() | fitting(token_ids, bits) | rows(st.integers(-1, 2))) or None,
        model=draw(models),
        outputs=draw(outputs),
        truncate=draw(st.booleans()),
    )


@st.composite
def of_texts(draw: st.DrawFn) -> Query:
    """Makes requests of texts and pairs."""
    return Query(
        text=draw(st.lists(texts | st.tuples(texts, texts), max_size=4)),
        model=draw(models),
        outputs=draw(outputs),
        truncate=draw(st.booleans()),
    )


queries = of_ids() | of_texts() | st.builds(Query, model=models, outputs=outputs)
"""All requests; the last kind has no input."""
