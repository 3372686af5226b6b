"""Makes the golden files in `transformers/` next to this script, with transformers itself.

Run in an environment that has transformers and torch, from the repository's root:

    python -m tests.data.make_transformers_golden

It imports nothing of `service`: all data are transformers'. Inputs and texts are those of the files
that `make_golden` wrote.

    transformers/<style>/        a checkpoint of each style: the same architecture, other weights, other names
    transformers/<style>.npz     its last hidden states for each case of `below.npz`
    transformers/tokenizer.json  ids of each text under each tokenizer setting, and truncated pairs
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import ElectraConfig, ElectraTokenizer

HERE = Path(__file__).parent
OUT = HERE / "transformers"
VOCABULARY = HERE / "vocabulary.txt"

SHAPE = {
    "vocab_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 16,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


class Style(NamedTuple):
    """One way in which checkpoints differ.

    Attributes:
        model_class: What saves it.
        embedding_ratio: The embeddings' width in units of the encoder's.
        changes: To the config.
    """

    model_class: str
    embedding_ratio: float = 0.5
    changes: Mapping[str, Any] = MappingProxyType({})


STYLES = {
    "bare": Style("ElectraModel"),
    "equal": Style("ElectraModel", embedding_ratio=1),
    "discriminator": Style("ElectraForPreTraining"),
    "generator": Style("ElectraForMaskedLM", embedding_ratio=1.5),
    "classifier": Style("ElectraForSequenceClassification"),
    "legacy": Style("ElectraForPreTraining"),
    "tanh": Style("ElectraModel", changes={"hidden_act": "gelu_new"}),
    "bfloat16": Style("ElectraModel"),
    "float16": Style("ElectraModel"),
    "sharded": Style("ElectraForPreTraining"),
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"do_lower_case": False},
    {"strip_accents": False},
    {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
]


def main() -> None:
    """Writes every golden file."""
    shutil.rmtree(OUT, ignore_errors=True)
    for style in STYLES:
        model = save_checkpoint(style, OUT / style, SHAPE, stddev=0.3, shard_bytes=8_000)
        np.savez_compressed(OUT / f"{style}.npz", **golden_arrays(model))
    content = json.dumps(tokenizer_golden(), ensure_ascii=True, separators=(",", ":"))
    (OUT / "tokenizer.json").write_text(content + "\n", encoding="utf-8")


def save_checkpoint(style: str, folder: Path, shape: Mapping[str, Any], *, stddev: float, shard_bytes: int) -> Any:
    """Saves a checkpoint of that style, and returns its model in float32."""
    model_class, ratio, changes = STYLES[style]
    config = {**shape, "embedding_size": int(shape["hidden_size"] * ratio), **changes}
    model = make_model(model_class, config, list(STYLES).index(style), stddev)
    if style in {"bfloat16", "float16"}:
        model = model.to(getattr(torch, style))
    model.save_pretrained(folder, max_shard_size=shard_bytes if style == "sharded" else "10GB")
    if style == "legacy":
        rename(folder / "model.safetensors", legacy_name)
    return model.float()


def make_model(model_class: str, config: Mapping[str, Any], seed: int, stddev: float) -> Any:
    """A model whose every weight matters: none is 0, no norm is the identity, and attention is not uniform."""
    model = getattr(transformers, model_class)(ElectraConfig(**config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(center + stddev * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def legacy_name(name: str) -> str:
    """The name as the conversions of 2020 have it."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def rename(path: Path, name: Callable[[str], str]) -> None:
    """Writes a checkpoint again, each tensor under another name, and with a buffer that old versions saved."""
    tensors = {name(old): tensor for old, tensor in load_file(path).items()}
    tensors["electra.embeddings.position_ids"] = torch.arange(8)[None]
    save_file(tensors, path, metadata={"format": "pt"})


def golden_arrays(model: Any) -> dict[str, Any]:
    """The encoder's last hidden states for every case."""
    encoder = getattr(model, "electra", model)
    hidden = {}
    with np.load(HERE / "below.npz") as inputs, torch.no_grad():
        for case in {key.split("/")[0] for key in inputs}:
            ids, segments, mask = (
                torch.from_numpy(inputs[f"{case}/{name}"].astype(np.int64))
                for name in ("token_ids", "segment_ids", "padding_mask")
            )
            output = encoder(input_ids=ids, token_type_ids=segments, attention_mask=mask)
            hidden[case] = output.last_hidden_state.numpy()
    return dict(sorted(hidden.items()))


def tokenizer_golden() -> dict[str, Any]:
    """Ids of each text of KerasHub's golden file under each setting, and texts in pairs."""
    keras = json.loads((HERE / "tokenizer.json").read_text())
    vocabulary = [*VOCABULARY.read_text(encoding="utf-8").splitlines(), *keras["extra_pieces"]]
    return {
        "settings": [settings_golden(vocabulary, keras["texts"], settings) for settings in SETTINGS],
        "pairs": pairs_golden(make_tokenizer(vocabulary)),
        "special": special_golden(vocabulary),
    }


def make_tokenizer(vocabulary: list[str], **settings: Any) -> Any:
    """Returns the class that transformers 5 also has as `ElectraTokenizerFast`."""
    return ElectraTokenizer(vocab={piece: i for i, piece in enumerate(vocabulary)}, **settings)


def settings_golden(vocabulary: list[str], texts: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Ids of all texts under one setting."""
    return {**settings, "ids": make_tokenizer(vocabulary, **settings)(texts)["input_ids"]}


def pairs_golden(tokenizer: Any) -> list[dict[str, Any]]:
    """Pairs, truncated to several lengths."""
    texts = ["the rabbit was late", "who was late?", "a b c d e f g h", "h g f e d c b a", "a b", "", "a " * 300]
    golden = []
    for first, second, length in itertools.product(texts, texts, (3, 4, 5, 8, 11, 32)):
        packed = tokenizer([first], [second], truncation="longest_first", max_length=length)
        row = {"texts": [first, second], "max_length": length}
        golden.append({**row, "token_ids": packed["input_ids"][0], "segment_ids": packed["token_type_ids"][0]})
    return golden


def special_golden(vocabulary: list[str]) -> list[dict[str, Any]]:
    """Special pieces in a text, with and without `split_special_tokens`."""
    texts = ["a [MASK] b", "x[MASK]y [SEP][CLS]", "[mask] [PAD]", "[UNK] [ MASK ]", "the capital is [MASK]."]
    golden = []
    for split in (False, True):
        tokenizer = make_tokenizer(vocabulary, split_special_tokens=split)
        golden += [{"text": text, "split": split, "ids": tokenizer(text)["input_ids"]} for text in texts]
    return golden


if __name__ == "__main__":
    main()
