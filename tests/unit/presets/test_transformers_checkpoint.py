"""Transformers checkpoints: the meaning of their configs, and every reason to reject a folder."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from safetensors.numpy import load_file, save_file

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.transformers_checkpoint import ACTIVATIONS, checkpoint_config, read_checkpoint_config
from tests.data.reader import STYLES, TRANSFORMERS
from tests.unit.presets.test_config import configs

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
KERNEL = "encoder.layer.1.output.dense.weight"
Tensors = dict[str, np.ndarray[tuple[int, ...], np.dtype[Any]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TRANSFORMERS / "bare", tmp_path / "checkpoint"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TRANSFORMERS / "sharded", tmp_path / "shards"))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit(folder: Path, change: Callable[[Tensors], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load(folder: Path) -> PresetFolder:
    return resolve_preset(str(folder))


def rejection(folder: Path) -> str:
    with pytest.raises(PresetError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_read(style: str) -> None:
    preset = load(TRANSFORMERS / style)
    assert (preset.id, preset.source, preset.format) == (style, "local", "transformers")
    assert (preset.weights, preset.pooler, preset.has_tokenizer) == ("pretrained", "random", False)
    assert preset.config.hidden_activation == ("gelu_tanh" if style == "tanh" else "gelu")
    assert len(preset.weight_files) == (3 if style == "sharded" else 1)


def test_a_trained_pooler_is_distinguished_from_a_fresh_one(folder: Path) -> None:
    def with_pooler(bias: float) -> Callable[[Tensors], None]:
        return lambda tensors: tensors.update(
            {"pooler.dense.weight": np.ones((16, 16), np.float32), "pooler.dense.bias": np.full(16, bias, np.float32)}
        )

    edit(folder, with_pooler(0.0))
    assert load(folder).pooler == "random"
    edit(folder, with_pooler(0.01))
    assert load(folder).pooler == "pretrained"


def test_without_weights_a_checkpoint_needs_none(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    preset = resolve_preset(str(folder), load_weights=False)
    assert (preset.weights, preset.weight_files, preset.config.vocab_size) == ("random", (), 60)


def test_the_revision_changes_with_the_weights(folder: Path) -> None:
    before = load(folder).revision
    edit(folder, lambda tensors: tensors[KERNEL].__setitem__((0, 0), 9.0))
    assert load(folder).revision != before


@given(configs())
def test_a_config_is_read_back(config: BackboneConfig) -> None:
    assert read_checkpoint_config(json.loads(json.dumps(checkpoint_config(config)))) == config


def test_what_a_config_leaves_out_is_electra_small() -> None:
    config = read_checkpoint_config({"model_type": "electra"})
    assert (config.parameters, config.hidden_activation) == (13_548_800, "gelu")


def test_what_a_config_leaves_out_is_bert_base() -> None:
    config = read_checkpoint_config({"model_type": "bert"})
    assert (config.parameters, config.embedding_dim, config.num_heads) == (109_482_240, 768, 12)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_bert_checkpoint_is_an_encoder_without_projection(folder: Path, prefix: str) -> None:
    shutil.rmtree(folder)
    shutil.copytree(TRANSFORMERS / "equal", folder)
    rewrite(folder / "config.json", model_type="bert")

    def as_bert(tensors: Tensors) -> None:
        encoder = {f"{prefix}{name.removeprefix('electra.')}": values for name, values in tensors.items()}
        tensors.clear()
        tensors.update(encoder)
        tensors[f"{prefix}embeddings.position_ids"] = np.arange(8)[None]
        tensors[f"{prefix}pooler.dense.weight"] = np.ones((16, 16), np.float32)
        tensors[f"{prefix}pooler.dense.bias"] = np.full(16, 0.1, np.float32)
        if prefix:  # with the heads that it was pre-trained with
            tensors["cls.predictions.bias"] = np.zeros(60, np.float32)
            tensors["cls.seq_relationship.weight"] = np.zeros((2, 16), np.float32)

    edit(folder, as_bert)
    preset = load(folder)
    assert (preset.config.embedding_dim, preset.pooler) == (preset.config.hidden_dim, "pretrained")


@pytest.mark.parametrize(("name", "ours"), ACTIVATIONS.items())
def test_hidden_act_decides_the_activation(name: str, ours: str) -> None:
    assert read_checkpoint_config({"model_type": "electra", "hidden_act": name}).hidden_activation == ours


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "model_type must be electra or bert; got 't5'"),
        ({"model_type": ["electra"]}, "model_type must be electra or bert; got ['electra']"),
        ({"model_type": "roberta"}, "got 'roberta': its positions are counted from the padding id"),
        ({"model_type": "distilbert"}, "got 'distilbert': it has no segment embeddings"),
        ({"model_type": "mpnet"}, "got 'mpnet': its attention adds a bias of relative positions"),
        ({"hidden_act": "relu"}, "hidden_act must be one of gelu, gelu_new, gelu_pytorch_tanh; got 'relu'"),
        ({"hidden_act": {"x": 1}}, "hidden_act must be one of"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps must be 1e-12 or left out; got 1e-05"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'"),
        ({"is_decoder": True}, "is_decoder must be False"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads must be {}"),
        ({"auto_map": {"AutoModel": "evil.py"}}, "auto_map must be None"),
        ({"quantization_config": {"bits": 4}}, "quantization_config must be None"),
        ({"hidden_size": 10**9}, "hidden_dim must be an integer from 1 to 16384"),
        ({"vocab_size": "60"}, "vocab_size must be an integer"),
        ({"num_attention_heads": 3}, "num_heads must divide hidden_dim"),
        ({"hidden_dropout_prob": 2}, "dropout must be at least 0 and below 1"),
    ],
)
def test_another_architecture_is_rejected(folder: Path, changes: dict[str, object], message: str) -> None:
    rewrite(folder / "config.json", **changes)
    assert "config.json: " in rejection(folder)
    assert message in rejection(folder)


def test_a_size_the_weights_do_not_have_is_rejected_before_anything_is_built(folder: Path) -> None:
    rewrite(folder / "config.json", vocab_size=10**6, embedding_size=16_384)
    assert "must have shape" in rejection(folder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pytorch_model.bin", "it has neither|pytorch_model.bin is a pickle, which can run any code"),
        ("model.keras", "model.keras holds a config that can run any code"),
        ("tf_model.h5", "tf_model.h5 is of TensorFlow classes"),
    ],
)
def test_other_weights_are_rejected_with_the_reason(folder: Path, name: str, reason: str) -> None:
    (folder / WEIGHTS).rename(folder / name)
    assert f"must have {WEIGHTS}, or {INDEX} and its shards; {reason.split('|')[-1]}" in rejection(folder)


def test_no_weights_at_all_are_rejected(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert f"must have {WEIGHTS}, or {INDEX} and its shards; it has neither" in rejection(folder)


def drop(tensors: Tensors) -> None:
    del tensors[KERNEL]


def transpose(tensors: Tensors) -> None:
    tensors[KERNEL] = np.ascontiguousarray(tensors[KERNEL].T)


def integers(tensors: Tensors) -> None:
    tensors[KERNEL] = tensors[KERNEL].astype(np.int8)


def third_layer(tensors: Tensors) -> None:
    tensors[KERNEL.replace("1", "2")] = tensors[KERNEL]


def half_a_pooler(tensors: Tensors) -> None:
    tensors["pooler.dense.weight"] = np.zeros((16, 16), np.float32)


def second_style(tensors: Tensors) -> None:
    tensors[f"electra.{KERNEL}"] = tensors[KERNEL]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, f"checkpoint: the checkpoint must have {KERNEL}; it is missing"),
        (transpose, f"checkpoint: {KERNEL} must have shape (16, 32); it has (32, 16)"),
        (integers, f"checkpoint: {KERNEL} must be of one of F64, F32, F16, BF16; it is of I8"),
        (third_layer, "it also holds 'encoder.layer.2.output.dense.weight', of 1 in all"),
        (half_a_pooler, "the checkpoint must have pooler.dense.bias; it is missing"),
        (second_style, "checkpoint: a checkpoint must name each tensor once, all in one style"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_wrong_tensors_are_rejected(folder: Path, change: Callable[[Tensors], None], message: str) -> None:
    edit(folder, change)
    assert message in rejection(folder)


def header(whole: bytes, **tensors: object) -> bytes:
    encoded = json.dumps(tensors).encode()
    return struct.pack("<Q", len(encoded)) + encoded + whole[-64:]


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: b"",
        lambda whole: whole[:5],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: b"<!DOCTYPE html><html><body>Not found</body></html>" * 100,
        lambda whole: b"\0" * len(whole),
        lambda whole: struct.pack("<Q", 2**62) + whole[8:],
        lambda whole: struct.pack("<Q", 100) + b"{" * 100,
        lambda whole: header(whole, a={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 64]}),
        lambda whole: header(whole, a={"dtype": "F32", "shape": [16], "data_offsets": [8, 72]}),
        lambda whole: header(whole, a={"dtype": "F99", "shape": [16], "data_offsets": [0, 64]}),
    ],
    ids=[
        "empty", "stub", "half", "a byte less", "a byte more", "HTML", "zeros", "absurd header", "broken header",
        "absurd shape", "outside", "absurd type",
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_safetensors_is_rejected(folder: Path, content: Callable[[bytes], bytes]) -> None:
    (folder / WEIGHTS).write_bytes(content((folder / WEIGHTS).read_bytes()))
    assert "model.safetensors: must be a whole safetensors file" in rejection(folder)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "pytorch_model.bin", "model-9.safetensors", 3, ["x", 3]],
)
def test_an_index_names_files_of_the_folder_only(sharded: Path, name: object) -> None:
    rewrite(sharded / INDEX, weight_map={KERNEL: name})
    assert "shard" in rejection(sharded) or "file names" in rejection(sharded)


@pytest.mark.parametrize("weight_map", [{}, [], None])
def test_an_index_without_files_is_rejected(sharded: Path, weight_map: object) -> None:
    rewrite(sharded / INDEX, weight_map=weight_map)
    assert "weight_map must be an object that names at least one shard" in rejection(sharded)


def test_a_shard_that_is_left_out_is_missed(sharded: Path) -> None:
    rewrite(sharded / INDEX, weight_map={"x": "model-00001-of-00003.safetensors"})
    assert "the checkpoint must have" in rejection(sharded)


def test_a_tensor_in_two_shards_is_rejected(sharded: Path) -> None:
    shutil.copy(sharded / "model-00001-of-00003.safetensors", sharded / "model-00002-of-00003.safetensors")
    assert "a tensor must be in one shard" in rejection(sharded)
