"""Trains the lower-case WordPiece vocabulary. Special pieces have BERT's ids: [CLS] 101 and [SEP] 102."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SIZE: Final = 8000
PAD, CLS, SEP = 0, 101, 102

SPECIAL_PIECES: Final = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET: Final = [*digits, *ascii_lowercase, *punctuation]


def train(texts: Iterable[str], path: Path) -> list[str]:
    """Reads the vocabulary at `path`, or trains it: special pieces, letters, then the most frequent pieces."""
    if not path.exists():
        tokenizer = Tokenizer(models.WordPiece())
        _as_bert(tokenizer)
        letters = [*ALPHABET, *(f"##{letter}" for letter in digits + ascii_lowercase)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=SIZE,
            min_frequency=2,
            special_tokens=[*SPECIAL_PIECES, *letters],
            initial_alphabet=ALPHABET,
            limit_alphabet=len(ALPHABET),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
        path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return path.read_text(encoding="utf-8").splitlines()


def tokenizer(pieces: list[str]) -> Tokenizer:
    """Returns the tokenizer of these pieces, without special pieces around a text."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    _as_bert(made)
    return made


def _as_bert(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
