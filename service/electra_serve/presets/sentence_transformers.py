"""Embedding description of a sentence-transformers folder: how hidden states become one vector.

    modules.json                         the modules in order: Transformer, Pooling and, if it normalizes, Normalize
    1_Pooling/config.json                the pooling mode
    config_sentence_transformers.json    prompts, if it has any

A cross-encoder has one module, and its activation in config_sentence_transformers.json. The folder's root is a
transformers checkpoint. The longest sequence, in sentence_bert_config.json, is the tokenizer's.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Literal, get_args

from electra_serve.errors import PresetError
from electra_serve.presets.files import read_json, read_json_list
from electra_serve.presets.texts import is_utf8

MODULES_FILE: Final = "modules.json"
PROMPTS_FILE: Final = "config_sentence_transformers.json"
POOLING_CONFIG: Final = "config.json"  # inside the folder of the pooling module
# Names under which sentence-transformers saves them
HUB_FILES: Final = (MODULES_FILE, PROMPTS_FILE, f"1_Pooling/{POOLING_CONFIG}")

Pooling = Literal["mean", "cls"]
POOLINGS: Final[tuple[Pooling, ...]] = get_args(Pooling)

# Flags of sentence-transformers before 6 → the values of `pooling_mode` since
LEGACY_MODES: Final[Mapping[str, str]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class EmbeddingConfig:
    """Computation of the output `embedding` from hidden states."""

    pooling: Pooling = "mean"  # `mean` over unmasked positions, or `cls` for the first position
    normalize: bool = False  # True to scale the vector to unit length
    # prefixes of texts by name, such as `query`. Clients add them.
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""  # name of the prompt for texts without one; "" if there is none


DEFAULT_EMBEDDING: Final = EmbeddingConfig()  # for presets without a description


def is_sentence_transformer(folder: Path) -> bool:
    """Returns True if `folder` describes an embedding."""
    return (folder / MODULES_FILE).is_file()


def read_embedding(folder: Path) -> EmbeddingConfig:
    """Reads the description in `folder`; mean pooling without normalization if it has none.

    Raises:
        PresetError: A file is malformed, or describes another computation than `EmbeddingConfig` can.
    """
    if not is_sentence_transformer(folder):
        return DEFAULT_EMBEDDING
    modules = [_module(folder, entry) for entry in read_json_list(folder / MODULES_FILE)]
    kinds = [kind for kind, _ in modules]
    if kinds == ["Transformer"] and _is_cross_encoder(folder):
        return EmbeddingConfig(DEFAULT_EMBEDDING.pooling, DEFAULT_EMBEDDING.normalize, *_prompts(folder / PROMPTS_FILE))
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise PresetError(
            f"{folder / MODULES_FILE}: the modules must be Transformer, Pooling and, if any, Normalize; "
            f"got {', '.join(kinds):.200}"
        )
    pooling = _pooling(folder / modules[1][1] / POOLING_CONFIG)
    prompts, default = _prompts(folder / PROMPTS_FILE)
    return EmbeddingConfig(pooling, "Normalize" in kinds, prompts, default)


def read_activation(folder: Path) -> object:
    """Returns the `activation_fn` of a cross-encoder of sentence-transformers 5 and later; None if it has none."""
    path = folder / PROMPTS_FILE
    return read_json(path).get("activation_fn") if path.is_file() else None


def _is_cross_encoder(folder: Path) -> bool:
    path = folder / PROMPTS_FILE
    return path.is_file() and read_json(path).get("model_type") == "CrossEncoder"


def embedding_files(folder: Path) -> tuple[Path, ...]:
    """Returns the files of `folder` that describe the embedding and exist."""
    if not is_sentence_transformer(folder):
        return tuple(file for file in (folder / PROMPTS_FILE,) if file.is_file())
    modules = [_module(folder, entry) for entry in read_json_list(folder / MODULES_FILE)]
    files = [folder / MODULES_FILE, folder / PROMPTS_FILE]
    files += [folder / path / POOLING_CONFIG for _, path in modules if path]
    return tuple(file for file in files if file.is_file())


def copy_embedding(source: Path, folder: Path) -> None:
    """Copies the description of `source` into `folder`."""
    for file in embedding_files(source):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)


def _module(folder: Path, entry: object) -> tuple[str, str]:
    """Returns the class name of a module, and its folder."""
    kind, path = (entry.get("type"), entry.get("path")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(kind, str) or not isinstance(path, str):
        raise PresetError(f"{folder / MODULES_FILE}: a module must have a type and a path, as texts")
    parts = PurePosixPath(path).parts
    if len(parts) > 1 or any(part in {"..", "/"} for part in parts) or "\\" in path:
        raise PresetError(f"{folder / MODULES_FILE}: path must be a folder right in the preset's; got {path!r:.80}")
    return kind.rpartition(".")[2], path


def _pooling(path: Path) -> Pooling:
    content = read_json(path)
    modes = content.get("pooling_mode", [mode for flag, mode in LEGACY_MODES.items() if content.get(flag) is True])
    named = modes if isinstance(modes, list) else [modes]
    if named not in [[pooling] for pooling in POOLINGS]:
        raise PresetError(f"{path}: the pooling mode must be {' or '.join(POOLINGS)}; got {modes!r:.80}")
    if content.get("include_prompt", True) is not True:
        raise PresetError(f"{path}: include_prompt must be true: prompts are part of the mean")
    pooling: Pooling = named[0]
    return pooling


def _prompts(path: Path) -> tuple[dict[str, str], str]:
    if not path.is_file():
        return {}, ""
    content = read_json(path)
    prompts, default = content.get("prompts") or {}, content.get("default_prompt_name") or ""
    texts = isinstance(prompts, Mapping) and all(isinstance(prompt, str) for prompt in prompts.values())
    if not texts or not isinstance(prompts, Mapping):
        raise PresetError(f"{path}: prompts must be an object of texts")
    if not isinstance(default, str) or (default and default not in prompts):
        raise PresetError(f"{path}: default_prompt_name must name one of the prompts; got {default!r:.80}")
    unencodable = [text for text in (*prompts, *prompts.values()) if not is_utf8(text)]
    if unencodable:
        raise PresetError(f"{path}: prompts and their names must encode as UTF-8; got {unencodable[0]!r:.80}")
    return dict(prompts), default
