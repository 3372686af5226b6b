"""Text to ids. Each format's tokenizer gives the ids of the library that defined it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from electra_serve.errors import PresetError
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, read_keras_tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair, TokenizedText
from electra_serve.presets.tokenizers.transformers import TransformersTokenizer
from electra_serve.presets.tokenizers.transformers_files import read_transformers_tokenizer


class Tokenizer(Protocol):
    """A tokenizer. Stateless once built: any thread may use it."""

    def encode(self, texts: Sequence[TextOrPair], *, max_length: int, truncate: bool) -> TokenizedText:
        """Turns texts into `[CLS] a [SEP]` and pairs into `[CLS] a [SEP] b [SEP]`.

        Args:
            texts: Each a text, or a pair of texts.
            max_length: Most ids of one result, at least 3 for a pair and 2 otherwise.
            truncate: Cut what is longer than `max_length`, of a pair the longer text first. The [SEP]s stay. If
                False nothing is cut: results may be longer than `max_length`.
        """


def load_tokenizer(preset: PresetFolder) -> Tokenizer | None:
    """The tokenizer of a preset; None where it has none.

    Raises:
        PresetError: Its files are unreadable, or ask for what these tokenizers do not do.
    """
    if preset.path is None or not preset.has_tokenizer:
        return None
    if preset.format == "transformers":
        transformers = read_transformers_tokenizer(preset.path)
        _check_ids(max(transformers.ids, default=-1) + 1, preset)
        return TransformersTokenizer(transformers)
    keras = read_keras_tokenizer(preset.path)
    _check_ids(len(keras.vocabulary), preset)
    return KerasTokenizer(keras.vocabulary, keras.config)


def _check_ids(ids: int, preset: PresetFolder) -> None:
    if ids > preset.config.vocab_size:
        raise PresetError(
            f"{preset.id}: the vocabulary must have at most {preset.config.vocab_size} pieces, as the model's "
            f"vocab_size says; it has {ids}"
        )
