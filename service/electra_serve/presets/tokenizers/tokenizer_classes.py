"""The tokenizer class that a checkpoint means, as `AutoTokenizer` of transformers 5 resolves it.

    tokenizer_config.json: tokenizer_class     first, with or without `Fast`
    config.json: tokenizer_class               then
    BertTokenizer                              what transformers has for model_type electra, if neither names one

Two classes are reproduced exactly. A name that transformers does not know means tokenizer.json as it is there; here it
is rejected, because the checkpoint was not made with that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from electra_serve.errors import PresetError

TokenizerClass = Literal["bert", "generic"]

# Names in the files, without `Fast`: BERT's rules on the vocabulary, or tokenizer.json as it is
CLASSES: Final[Mapping[str, TokenizerClass]] = {
    **dict.fromkeys(
        (
            "BertTokenizer",
            "ElectraTokenizer",
            "LayoutLMTokenizer",
            "LxmertTokenizer",
            "MobileBertTokenizer",
            "SqueezeBertTokenizer",
        ),
        "bert",
    ),
    **dict.fromkeys(("PreTrainedTokenizer", "PythonBackend", "TokenizersBackend"), "generic"),
}

CODE_KEY: Final = "auto_map"


class UnsupportedTokenizer(PresetError):
    """The files are well-formed and ask for a tokenizer whose ids are not reproduced exactly here."""


def resolve_tokenizer_class(settings: Mapping[str, object], model_settings: Mapping[str, object]) -> TokenizerClass:
    """Resolves the class.

    Args:
        settings: The content of tokenizer_config.json; empty if there is none.
        model_settings: The content of config.json.

    Raises:
        UnsupportedTokenizer: It is another class, or code of the checkpoint's own.

    Example:
        >>> resolve_tokenizer_class({"tokenizer_class": "PreTrainedTokenizerFast"}, {"model_type": "electra"})
        'generic'
    """
    _reject_own_code(settings.get(CODE_KEY))
    name = settings.get("tokenizer_class")
    if name is None:
        name = model_settings.get("tokenizer_class")
    if name is None:
        return "bert"
    found = CLASSES.get(name.removesuffix("Fast")) if isinstance(name, str) else None
    if found is None:
        known = ", ".join(CLASSES)
        raise UnsupportedTokenizer(f"tokenizer_class must be one of {known}, with or without Fast; got {name!r:.80}")
    if "model_name" in model_settings and found != "bert":
        raise UnsupportedTokenizer("config.json must not have model_name, which can name another tokenizer class")
    return found


def _reject_own_code(auto_map: object) -> None:
    own = auto_map.get("AutoTokenizer") if isinstance(auto_map, Mapping) else auto_map
    if own is not None:
        raise UnsupportedTokenizer(
            f"tokenizer_config.json must not have {CODE_KEY}: code of the checkpoint's own is never run"
        )
