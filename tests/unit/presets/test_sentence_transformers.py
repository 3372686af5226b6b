"""Embedding descriptions of sentence-transformers folders, in both of their formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.sentence_transformers import EmbeddingConfig, embedding_files, read_embedding

OLD, NEW = "sentence_transformers.models", "sentence_transformers.sentence_transformer.modules.pooling"


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def describe(folder: Path, *kinds: str, pooling: Any = None, prompts: Any = None) -> Path:
    paths = ["", "1_Pooling", "2_Normalize", "3_More"]
    write(folder / "modules.json", [{"idx": i, "path": paths[i], "type": kind} for i, kind in enumerate(kinds)])
    if pooling is not None:
        write(folder / "1_Pooling" / "config.json", pooling)
    if prompts is not None:
        write(folder / "config_sentence_transformers.json", prompts)
    return folder


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_normalization_are_read(
    tmp_path: Path, pooling: dict[str, Any], expected: str, normalize: bool
) -> None:
    kinds = [f"{OLD}.Transformer", f"{NEW}.Pooling", *[f"{OLD}.Normalize"] * normalize]

    found = read_embedding(describe(tmp_path, *kinds, pooling=pooling))

    assert (found.pooling, found.normalize) == (expected, normalize)


def test_prompts_are_read(tmp_path: Path) -> None:
    prompts: dict[str, Any] = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}

    found = read_embedding(
        describe(tmp_path, "Transformer", "Pooling", pooling={"pooling_mode": "cls"}, prompts=prompts)
    )

    assert found == EmbeddingConfig("cls", normalize=False, prompts=prompts["prompts"], default_prompt="query")
    assert [file.relative_to(tmp_path).as_posix() for file in embedding_files(tmp_path)] == [
        "modules.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
    ]


def test_a_plain_checkpoint_has_the_mean(tmp_path: Path) -> None:
    assert read_embedding(tmp_path) == EmbeddingConfig("mean", normalize=False)
    assert embedding_files(tmp_path) == ()


@pytest.mark.parametrize(
    ("kinds", "pooling", "prompts", "message"),
    [
        (("Transformer", "Pooling", "Dense"), {"pooling_mode": "cls"}, None, "got Transformer, Pooling, Dense"),
        (("Transformer",), None, None, "the modules must be Transformer, Pooling"),
        (("Transformer", "Pooling"), {"pooling_mode": "max"}, None, "mode must be mean or cls; got 'max'"),
        (("Transformer", "Pooling"), {"pooling_mode": ["cls", "mean"]}, None, "got ['cls', 'mean']"),
        (("Transformer", "Pooling"), {}, None, "mode must be mean or cls; got []"),
        (("Transformer", "Pooling"), {"pooling_mode": "mean", "include_prompt": False}, None, "include_prompt"),
        (("Transformer", "Pooling"), None, None, "1_Pooling/config.json: cannot be read"),
        (("Transformer", "Pooling"), {"pooling_mode": "cls"}, {"prompts": ["x"]}, "prompts must be an object"),
        (("Transformer", "Pooling"), {"pooling_mode": "cls"}, {"default_prompt_name": "x"}, "must name one of"),
        (("Transformer", "Pooling"), {"pooling_mode": "cls"}, {"prompts": {"q": "\ud800"}}, "UTF-8; got '\\ud800'"),
        (("Transformer", "Pooling"), {"pooling_mode": "cls"}, {"prompts": {"\udfff": ""}}, "UTF-8; got '\\udfff'"),
    ],
)
def test_another_computation_is_rejected(
    tmp_path: Path, kinds: tuple[str, ...], pooling: Any, prompts: Any, message: str
) -> None:
    describe(tmp_path, *kinds, pooling=pooling, prompts=prompts)

    with pytest.raises(PresetError) as caught:
        read_embedding(tmp_path)

    assert message in str(caught.value)


@pytest.mark.parametrize("path", ["../1_Pooling", "/etc", "a/b", "a\\b", 1, None])
def test_modules_lie_inside_the_folder(tmp_path: Path, path: Any) -> None:
    write(tmp_path / "modules.json", [{"path": "", "type": "Transformer"}, {"path": path, "type": "Pooling"}])

    with pytest.raises(PresetError, match=r"modules\.json"):
        read_embedding(tmp_path)


@pytest.mark.parametrize("content", [{}, ["Transformer"], [{"type": "Transformer"}]])
def test_malformed_modules_are_rejected(tmp_path: Path, content: Any) -> None:
    write(tmp_path / "modules.json", content)

    with pytest.raises(PresetError, match=r"modules\.json"):
        read_embedding(tmp_path)
