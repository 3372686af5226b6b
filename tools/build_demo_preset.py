"""Makes `electra_demo`, the preset inside the package: `python -m tools.build_demo_preset`.

A small encoder with random weights, and a lower-case WordPiece vocabulary trained on `tools/corpus`. Special pieces
have BERT's ids, [CLS] 101 and [SEP] 102. The same versions of the libraries make the same files, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase, digits, punctuation

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.weights import assign
from electra_serve.presets.files import write_json
from electra_serve.presets.folder import METADATA_FILE, TOKENIZER_FILE, VOCABULARY_FILE
from electra_serve.presets.tokenizers.word_splitter import WordSplitter, fold_case
from electra_serve.presets.weights import draw_weights

CORPUS = Path(__file__).parent / "corpus"
DEMO = Path(__file__).parents[1] / "service" / "electra_serve" / "presets" / "embedded" / "electra_demo"
VOCAB_SIZE = 4000
SEED = 20260101
STDDEV = 0.08
"""About 1/√hidden_dim: large enough for attention to distinguish positions, unlike ELECTRA's initial 0.02."""

SPECIAL_PIECES = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET = [*digits, *ascii_lowercase, *punctuation]


def build(folder: Path) -> None:
    """Writes the preset folder again."""
    shutil.rmtree(folder, ignore_errors=True)
    vocabulary = train_vocabulary()
    backbone = ElectraBackbone(
        vocab_size=len(vocabulary),
        num_layers=3,
        num_heads=4,
        hidden_dim=128,
        embedding_dim=64,
        intermediate_dim=512,
        name="electra_backbone",
    )
    assign(backbone.weights_by_path(), draw_weights(backbone.config, SEED, STDDEV))
    backbone.save_to_preset(folder)
    write_json(folder / METADATA_FILE, {"parameter_count": backbone.count_params(), "weights": "random"})
    write_tokenizer(folder, vocabulary)


def train_vocabulary() -> list[str]:
    """Special pieces, then every letter on its own and inside a word, then what the corpus has most."""
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = [*ALPHABET, *(f"##{letter}" for letter in digits + ascii_lowercase)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=2,
        special_tokens=[*SPECIAL_PIECES, *letters],
        initial_alphabet=ALPHABET,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(), trainer)
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)


def lines() -> Iterator[str]:
    """The corpus, each line already split into folded words as serving does it."""
    splitter = WordSplitter(split_on_cjk=True)
    for path in sorted(CORPUS.glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield " ".join(map(fold_case, splitter.split(line)))


def write_tokenizer(folder: Path, vocabulary: list[str]) -> None:
    """Writes the tokenizer's files as KerasHub does."""
    config = {
        "name": "electra_tokenizer",
        "trainable": True,
        "dtype": "int32",
        "vocabulary": None,
        "sequence_length": None,
        "lowercase": True,
        "strip_accents": True,
        "split": True,
        "suffix_indicator": "##",
        "oov_token": "[UNK]",
        "special_tokens": None,
        "special_tokens_in_strings": False,
    }
    content = {
        "module": "keras_hub.src.models.electra.electra_tokenizer",
        "class_name": "ElectraTokenizer",
        "config": config,
        "registered_name": "keras_hub>ElectraTokenizer",
    }
    write_json(folder / TOKENIZER_FILE, content)
    (folder / VOCABULARY_FILE).parent.mkdir(parents=True)
    (folder / VOCABULARY_FILE).write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")


if __name__ == "__main__":
    build(DEMO)
