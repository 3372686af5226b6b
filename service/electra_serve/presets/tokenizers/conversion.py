"""Writes the tokenizer of a preset in either format.

Conversion copies the vocabulary and the settings. KerasHub and transformers fold case, split words and treat rare
characters differently, so the same vocabulary gives other ids for a few texts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from electra_serve.errors import PresetError
from electra_serve.presets.folder import TOKENIZER_FILE, VOCABULARY_FILE, PresetFolder
from electra_serve.presets.tokenizers.bert_pipeline import (
    SPECIAL_TOKENS,
    BertConfig,
    make_bert_pipeline,
    read_bert_config,
    special_pieces,
    write_bert_files,
)
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizerFiles, TokenizerConfig, read_keras_tokenizer
from electra_serve.presets.tokenizers.tokenizer_classes import UnsupportedTokenizer
from electra_serve.presets.tokenizers.transformers_files import read_checkpoint_files
from electra_serve.presets.transformers_checkpoint import TOKENIZER_SIDE_FILES, VOCAB_FILE
from electra_serve.presets.weight_files.open import PresetFormat

TOKENIZER_FILES: Final[dict[PresetFormat, tuple[str, ...]]] = {
    "keras": (TOKENIZER_FILE, VOCABULARY_FILE),
    "transformers": (TOKENIZER_FILE, VOCAB_FILE, *TOKENIZER_SIDE_FILES),
}
SUFFIX_INDICATOR: Final = "##"


def convert_tokenizer(preset: PresetFolder, folder: Path, to: PresetFormat) -> None:
    """Writes the tokenizer of `preset` into `folder`; of the same format, it is copied as it is.

    Raises:
        PresetError: Its files are unreadable, or hold what the other format has no words for.
    """
    source = preset.path
    if source is None or not preset.has_tokenizer:
        return
    if preset.format == to:
        _copy(source, folder, TOKENIZER_FILES[to])
    elif to == "transformers":
        write_bert_files(_to_bert(read_keras_tokenizer(source)), folder, preset.config.max_sequence_length)
    else:
        _write_keras(_to_keras(_read_bert(source)), folder)


def _copy(source: Path, folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def _read_bert(source: Path) -> BertConfig:
    files = read_checkpoint_files(source)
    if files.kind != "bert":
        raise UnsupportedTokenizer("KerasHub's ElectraTokenizer has BERT's rules; this tokenizer is generic")
    return read_bert_config(files)


def _to_bert(files: KerasTokenizerFiles) -> BertConfig:
    config = files.config
    if config.suffix_indicator != SUFFIX_INDICATOR:
        raise PresetError(f"transformers needs suffix_indicator {SUFFIX_INDICATOR}; it is {config.suffix_indicator!r}")
    vocabulary = {piece: id_ for id_, piece in enumerate(files.vocabulary)}
    special = {**SPECIAL_TOKENS, "unk_token": config.oov_token}
    lacking = [piece for piece in special.values() if piece not in vocabulary]
    if lacking:
        raise PresetError(f"transformers needs the pieces {', '.join(special.values())}; {lacking[0]} is missing")
    return BertConfig(
        vocabulary=vocabulary,
        added=special_pieces(special),
        lowercase=config.lowercase,
        strip_accents=config.strip_accents,
        split_on_cjk=config.split_on_cjk,
    )


def _to_keras(config: BertConfig) -> KerasTokenizerFiles:
    pieces = {id_: piece for piece, id_ in make_bert_pipeline(config).get_vocab().items()}
    if set(pieces) != set(range(len(pieces))) or len(set(pieces.values())) < len(pieces):
        raise PresetError("a KerasHub vocabulary has each piece once, at ids from 0 without a gap; this one differs")
    cls, sep = config.role("cls_token"), config.role("sep_token")
    if (cls, sep) != (SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]):
        raise PresetError(f"KerasHub needs [CLS] and [SEP]; they are {cls!r} and {sep!r}")
    return KerasTokenizerFiles(
        vocabulary=[pieces[id_] for id_ in range(len(pieces))],
        config=TokenizerConfig(
            lowercase=config.lowercase,
            strip_accents=config.lowercase if config.strip_accents is None else config.strip_accents,
            split_on_cjk=config.split_on_cjk,
            oov_token=config.role("unk_token"),
        ),
    )


def _write_keras(files: KerasTokenizerFiles, folder: Path) -> None:
    config = files.config
    content = {
        "module": "keras_hub.src.models.electra.electra_tokenizer",
        "class_name": "ElectraTokenizer",
        "config": {
            "name": "electra_tokenizer",
            "trainable": True,
            "dtype": "int32",
            "vocabulary": None,
            "sequence_length": None,
            "lowercase": config.lowercase,
            "strip_accents": config.strip_accents,
            "split": True,
            "suffix_indicator": config.suffix_indicator,
            "oov_token": config.oov_token,
            "special_tokens": None,
            "special_tokens_in_strings": False,
            **({} if config.split_on_cjk else {"split_on_cjk": False}),  # KerasHub does not write the default
        },
        "registered_name": "keras_hub>ElectraTokenizer",
    }
    (folder / TOKENIZER_FILE).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    (folder / VOCABULARY_FILE).parent.mkdir(parents=True)
    vocabulary = "".join(f"{piece}\n" for piece in files.vocabulary)
    (folder / VOCABULARY_FILE).write_text(vocabulary, encoding="utf-8")
