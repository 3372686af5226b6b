"""Requested files, and the shards that an index may name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from electra_serve.presets.hubs.failure import FailureKind, FetchError
from electra_serve.presets.hubs.files import MAX_SHARDS, fetch_files, shards


class FakeRepository:
    """Files by name; records the requested ones."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._files = files
        self.asked: list[str] = []

    def download(self, name: str) -> Path | None:
        self.asked.append(name)
        if name not in self._files:
            return None
        path = self._folder / name.replace("/", "_")
        path.write_text(self._files[name])
        return path


def index(*names: object) -> str:
    return json.dumps({"weight_map": dict(enumerate(names))})


TOKENIZER_FILES = dict.fromkeys(
    (
        "tokenizer.json",
        "vocab.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "sentence_bert_config.json",
    ),
    "{}",
)


@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        (
            {"config.json": "{}", "assets/tokenizer/vocabulary.txt": "a", "model.weights.h5": "w"},
            {"config.json", "assets/tokenizer/vocabulary.txt", "model.weights.h5"},
        ),
        (
            {"config.json": "{}", "model.weights.json": index("m_0.weights.h5", ["m_1.weights.h5"]),
             "m_0.weights.h5": "0", "m_1.weights.h5": "1", "m_2.weights.h5": "2"},
            {"config.json", "model.weights.json", "m_0.weights.h5", "m_1.weights.h5"},
        ),
        (
            {"config.json": "{}", "vocab.txt": "a", "model.safetensors": "w", "pytorch_model.bin": "p"},
            {"config.json", "vocab.txt", "model.safetensors"},
        ),
        (
            {"config.json": "{}", "model.safetensors": "w", "tokenization_x.py": "p", **TOKENIZER_FILES},
            {"config.json", "model.safetensors", *TOKENIZER_FILES},
        ),
        (
            {"config.json": "{}", "model.safetensors.index.json": index("m-1.safetensors"), "m-1.safetensors": "w"},
            {"config.json", "model.safetensors.index.json", "m-1.safetensors"},
        ),
    ],
    ids=["keras", "keras shards", "transformers", "transformers with every tokenizer file", "transformers shards"],
)  # fmt: skip
def test_each_format_is_fetched_whole_and_nothing_else(
    tmp_path: Path, files: Mapping[str, str], fetched: set[str]
) -> None:
    repository = FakeRepository(tmp_path, files)
    assert set(fetch_files(repository.download)) == fetched
    assert "pytorch_model.bin" not in repository.asked


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ({}, FailureKind.NOT_FOUND, "it has no config.json"),
        ({"config.json": "{}", "pytorch_model.bin": "p"}, FailureKind.REJECTED, "can run code"),
        ({"config.json": "{}", "model.weights.json": index("a.weights.h5")}, FailureKind.NOT_FOUND, "no a.weights.h5"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, files: Mapping[str, str], kind: FailureKind, says: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_files(FakeRepository(tmp_path, files).download)
    assert caught.value.failure.kind is kind
    assert says in caught.value.failure.detail


@pytest.mark.parametrize(
    "name",
    ["../a.weights.h5", "/etc/a.weights.h5", "a/b.weights.h5", "..\\a.weights.h5", "a.keras", "", None, 3, {"a": 1}],
)
def test_a_shard_that_climbs_or_is_none_is_rejected(tmp_path: Path, name: object) -> None:
    repository = FakeRepository(tmp_path, {"config.json": "{}", "model.weights.json": index(name)})
    with pytest.raises(FetchError, match="in its own folder"):
        fetch_files(repository.download)
    assert repository.asked[-1] == "model.weights.json"


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"weight_map": []}', index()])
def test_what_is_no_index_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(FetchError):
        shards(tmp_path / "index.json", ".weights.h5")


def test_the_number_of_shards_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(index(*(f"{i}.weights.h5" for i in range(MAX_SHARDS))))
    assert len(shards(path, ".weights.h5")) == MAX_SHARDS
    path.write_text(index(*(f"{i}.weights.h5" for i in range(MAX_SHARDS + 1))))
    with pytest.raises(FetchError, match="got 1001 names"):
        shards(path, ".weights.h5")
