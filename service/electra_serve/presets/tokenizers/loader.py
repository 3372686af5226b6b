"""Text to ids. Each format's tokenizer gives the ids of the library that defined it, or there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tokenizers import Tokenizer as Pipeline

from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.tokenizers.bert_pipeline import build_bert_pipeline
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, read_keras_tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair, TokenizedText
from electra_serve.presets.tokenizers.serialized_pipeline import build_serialized_pipeline
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.presets.tokenizers.tokenizer_classes import UnsupportedTokenizer
from electra_serve.presets.tokenizers.transformers import TransformersTokenizer
from electra_serve.presets.tokenizers.transformers_files import read_checkpoint_files, read_sequence_settings
from electra_serve.tensors import Truncation


class Tokenizer(Protocol):
    """A tokenizer. Stateless once built: any thread may use it."""

    @property
    def max_length(self) -> int | None:
        """Longest sequence that its files allow, in ids; None if they do not bound it. Truncation keeps to it."""

    def encode(
        self,
        texts: Sequence[TextOrPair],
        *,
        max_length: int,
        truncation: Truncation = Truncation.NONE,
        stride: int | None = None,
        aligned: bool = False,
    ) -> TokenizedText:
        """Turns texts into sequences such as `[CLS] a [SEP]`, and pairs into `[CLS] a [SEP] b [SEP]`.

        Args:
            texts: Each a text, or a pair of texts.
            max_length: Most ids of one result, at least 3 for a pair and 2 otherwise.
            truncation: The rule for what is longer than `max_length`. Ids such as [SEP] stay. Results are longer than
                `max_length` if it is `NONE`, or if cutting the text that it names is not enough.
            stride: With it, nothing is cut. A text that is too long becomes several sequences, whose windows of it, or
                of the second text of a pair, overlap by `stride` ids. Windows of no more ids leave it too long.
            aligned: Adds the `alignments`.
        """

    def encode_in_steps(
        self,
        texts: Sequence[TextOrPair],
        *,
        max_length: int,
        truncation: Truncation = Truncation.NONE,
        stride: int | None = None,
        aligned: bool = False,
    ) -> Steps[TokenizedText]:
        """Does the same in steps, each of which yields the number of characters that it has read."""
        ...

    def piece(self, id_: int) -> str:
        """Returns the text of an id in the vocabulary; "" if it has none."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special: bool) -> str:
        """Turns ids from 0 into a text, without those outside the vocabulary.

        With `skip_special`, special ids are left out too.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoTokenizer:
    """The reason why a preset takes ids only.

    Attributes:
        reason: One line, without a path.
    """

    reason: str


NO_FILES: Final = NoTokenizer("the preset has no tokenizer")


def load_tokenizer(preset: PresetFolder) -> Tokenizer | NoTokenizer:
    """Loads the tokenizer of a preset, if its ids are those of the library that defined it; raises `PresetError`."""
    if preset.path is None or not preset.has_tokenizer:
        return NO_FILES
    try:
        if preset.format == "transformers":
            return _load_transformers(preset.path, preset.config.vocab_size)
        return _load_keras(preset.path, preset.config.vocab_size)
    except UnsupportedTokenizer as error:
        return NoTokenizer(str(error))


def _load_keras(path: Path, vocab_size: int) -> Tokenizer:
    files = read_keras_tokenizer(path)
    _check_ids((id_ for id_, piece in enumerate(files.vocabulary) if piece), vocab_size)
    return KerasTokenizer(files.vocabulary, files.config)


def _load_transformers(path: Path, vocab_size: int) -> Tokenizer:
    files = read_checkpoint_files(path)
    built = {"bert": build_bert_pipeline, "generic": build_serialized_pipeline}[files.kind](files)
    settings = read_sequence_settings(files, lowercase=built.lowercase)
    built.pipeline.encode_special_tokens = settings.split_special_tokens
    _check_ids(_base_ids(built.pipeline), vocab_size)
    _check_ids(built.template.own_ids, vocab_size)
    return TransformersTokenizer(
        built.pipeline,
        built.template if settings.segments else built.template.without_segments(),
        side=settings.side or built.side,
        max_length=settings.max_length,
        splits_at_spaces=built.splits_at_spaces,
    )


def _base_ids(pipeline: Pipeline) -> Iterable[int]:
    """Ids of the vocabulary itself; an added piece may be one that the model has no row for, and never occur."""
    return (id_ for piece, id_ in pipeline.get_vocab(with_added_tokens=False).items() if piece)


def _check_ids(ids: Iterable[int], vocab_size: int) -> None:
    largest = max(ids, default=-1)
    if largest >= vocab_size:
        raise UnsupportedTokenizer(
            f"ids of the vocabulary must be below {vocab_size}, as the model's vocab_size says; one is {largest}"
        )
