"""Any pipeline that a tokenizer.json holds, run as it is.

The template is found by running its post-processor on two pieces: whatever its type, the result shows which ids stand
around the texts, and their segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from tokenizers import Tokenizer as Pipeline
from tokenizers.models import WordLevel

from electra_serve.presets.folder import TOKENIZER_FILE
from electra_serve.presets.tokenizers.added_pieces import add_pieces, collect_added_pieces
from electra_serve.presets.tokenizers.pairs import Slot, Template
from electra_serve.presets.tokenizers.tokenizer_classes import UnsupportedTokenizer
from electra_serve.presets.tokenizers.transformers import BuiltPipeline
from electra_serve.presets.tokenizers.transformers_files import CheckpointFiles

MAX_WORD_CHARACTERS: Final = 200  # wordPiece's search takes time cubic in the length of a word
# Two texts of one piece each, whose ids no template has
PROBES: Final[Mapping[str, int]] = MappingProxyType({"a": 2**32 - 2, "b": 2**32 - 1})
# The form that transformers gives to a pipeline without a post-processor
PLAIN: Final = Template((Slot(text=0),), (Slot(text=0), Slot(text=1, segment=1)))


def build_serialized_pipeline(files: CheckpointFiles) -> BuiltPipeline:
    """Builds the pipeline that tokenizer.json holds, with the pieces that the other files add.

    Raises:
        PresetError: A piece that the files list is malformed.
        UnsupportedTokenizer: There is no tokenizer.json, it cannot be read, or cannot make ids of every text.
    """
    serialized = files.pieces.serialized
    if serialized is None:
        raise UnsupportedTokenizer(f"a generic tokenizer needs {TOKENIZER_FILE}; there is none")
    _check_model(serialized.get("model"))
    pipeline = _read(files)
    defaults = {} if pipeline.padding is None else {"pad_token": pipeline.padding["pad_token"]}
    pipeline.no_truncation()
    pipeline.no_padding()
    add_pieces(pipeline, collect_added_pieces(files.pieces, defaults))
    return BuiltPipeline(pipeline, find_template(pipeline), files.serialized_side)


def find_template(pipeline: Pipeline) -> Template:
    """Finds the form of the pipeline's sequences; raises `UnsupportedTokenizer`."""
    if pipeline.post_processor is None:
        return PLAIN
    probe = Pipeline(WordLevel(dict(PROBES), unk_token="a"))  # noqa: S106  # a piece, no secret
    probe.post_processor = pipeline.post_processor
    template = Template(_slots(probe.encode("a")), _slots(probe.encode("a", "b")))
    for slots, texts in ((template.single, [0]), (template.pair, [0, 1])):
        if sorted(slot.text for slot in slots if slot.text is not None) != texts:
            raise UnsupportedTokenizer(f"post_processor of {TOKENIZER_FILE} must put each text in once; it does not")
    return template


def _slots(encoding: Any) -> tuple[Slot, ...]:
    texts = {id_: text for text, id_ in enumerate(PROBES.values())}
    rows = zip(encoding.ids, encoding.type_ids, strict=True)
    return tuple(
        Slot(text=texts[id_], segment=segment) if id_ in texts else Slot(id=id_, segment=segment)
        for id_, segment in rows
    )


def _read(files: CheckpointFiles) -> Pipeline:
    try:
        return Pipeline.from_file(str(files.folder / TOKENIZER_FILE))
    except Exception as error:  # the library raises no narrower class
        raise UnsupportedTokenizer(f"{TOKENIZER_FILE} must be one that tokenizers reads; {error!s:.200}") from error


def _check_model(model: object) -> None:
    """Rejects models that fail on some texts, give other ids each time, or take too long."""
    content = model if isinstance(model, dict) else {}
    kind = str(content.get("type"))
    if kind not in MODELS:
        raise UnsupportedTokenizer(f"model of {TOKENIZER_FILE} must be one of {', '.join(MODELS)}; it is {kind:.40}")
    condition = MODELS[kind](content)
    if condition:
        raise UnsupportedTokenizer(f"model of {TOKENIZER_FILE} must {condition}; it does not")


def _word_piece(model: Mapping[str, Any]) -> str:
    length = model.get("max_input_chars_per_word", 100)
    if type(length) is not int or length > MAX_WORD_CHARACTERS:
        return f"have max_input_chars_per_word up to {MAX_WORD_CHARACTERS}"
    return _word_level(model)


def _word_level(model: Mapping[str, Any]) -> str:
    return "" if model.get("unk_token") in (model.get("vocab") or ()) else "have its unk_token in its vocab"


def _bpe(model: Mapping[str, Any]) -> str:
    if model.get("dropout"):
        return "have no dropout"
    return "" if model.get("unk_token") is None else _word_level(model)


def _unigram(model: Mapping[str, Any]) -> str:
    return "have an unk_id" if model.get("unk_id") is None else ""


# Model types, and what finds the condition that one breaks; "" if none
MODELS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = MappingProxyType(
    {"BPE": _bpe, "Unigram": _unigram, "WordLevel": _word_level, "WordPiece": _word_piece}
)
