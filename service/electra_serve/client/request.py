"""Requests of every transport: normalizes and checks the arguments of calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from electra_serve.errors import InvalidInput
from electra_serve.tensors import Aggregation, IntArray, Output, Truncation

Priority: TypeAlias = Literal["high", "normal", "low"]
_PRIORITIES: Final = get_args(Priority)
Row: TypeAlias = "Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]"
Rows: TypeAlias = "Sequence[Row] | NDArray[np.integer] | NDArray[np.bool_]"
Texts: TypeAlias = "str | Sequence[str | tuple[str, str]]"


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One request with valid types; the server checks the rest."""

    token_ids: Sequence[IntArray] | None  # integer arrays of shape (T,), or None if `texts` is set
    segment_ids: Sequence[IntArray] | None  # likewise, or None for all zeros
    padding_mask: Sequence[IntArray] | None  # likewise, or None for all ones
    texts: Sequence[str | tuple[str, str]] | None  # texts and pairs of texts, or None if `token_ids` is set
    model: str | None
    outputs: tuple[Output, ...]  # empty for the server's default, and for a classification
    truncate: bool
    truncation: Truncation | None  # None for the default rule of `truncate`
    priority: Priority

    @classmethod
    def of(
        cls,
        *,
        token_ids: Rows | None,
        segment_ids: Rows | None,
        padding_mask: Rows | None,
        text: Texts | None,
        model: str | None,
        truncate: bool,
        truncation: str | None,
        priority: Priority,
        outputs: Iterable[str] = (),
    ) -> Query:
        """Normalizes the arguments of a call; raises `InvalidInput` if a type or a name is invalid."""
        _check_options(model, priority)
        if (token_ids is None) == (text is None):
            raise InvalidInput(f"one of token_ids and text must be set; got {'neither' if text is None else 'both'}")
        if token_ids is None and not (segment_ids is None and padding_mask is None):
            raise InvalidInput("segment_ids and padding_mask need token_ids; got text")
        return cls(
            token_ids=_rows(token_ids, "token_ids"),
            segment_ids=_rows(segment_ids, "segment_ids"),
            padding_mask=_rows(padding_mask, "padding_mask"),
            texts=_texts(text),
            model=model,
            outputs=tuple(_output(name) for name in outputs),
            truncate=truncate,
            truncation=None if truncation is None else _truncation(truncation),
            priority=priority,
        )


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """Options of a classification; None for the server's defaults."""

    top_k: int | None = None
    raw_scores: bool = False
    aggregation: Aggregation | None = None
    stride: int | None = None
    max_answer_length: int | None = None

    @classmethod
    def of(
        cls,
        *,
        top_k: int | None,
        raw_scores: bool,
        aggregation: str | None,
        stride: int | None,
        max_answer_length: int | None,
    ) -> ClassifyOptions:
        """Checks the arguments; raises `InvalidInput` if a name is invalid, or a number is none of 32 bits."""
        for field, value in (("top_k", top_k), ("stride", stride), ("max_answer_length", max_answer_length)):
            _check_integer(value, field)
        return cls(top_k, raw_scores, _aggregation(aggregation), stride, max_answer_length)


@dataclass(frozen=True, slots=True)
class EmbedQuery:
    """One request to embed texts."""

    texts: Sequence[str]
    model: str | None
    prompt_name: str | None
    input_type: str | None
    dimensions: int | None
    priority: Priority

    @classmethod
    def of(
        cls,
        texts: str | Sequence[str],
        *,
        model: str | None,
        prompt_name: str | None,
        input_type: str | None,
        dimensions: int | None,
        priority: Priority,
    ) -> EmbedQuery:
        """Checks the arguments of a call; raises `InvalidInput` if a type or a name is invalid."""
        _check_options(model, priority)
        _check_integer(dimensions, "dimensions")
        return cls(
            texts=_strings([texts] if isinstance(texts, str) else texts, "texts"),
            model=model,
            prompt_name=None if prompt_name is None else _encodable(prompt_name),
            input_type=None if input_type is None else _encodable(input_type),
            dimensions=dimensions,
            priority=priority,
        )


@dataclass(frozen=True, slots=True)
class RerankQuery:
    """One request to rerank documents."""

    query: str
    documents: Sequence[str]
    model: str | None
    top_n: int | None
    raw_scores: bool
    priority: Priority

    @classmethod
    def of(
        cls,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None,
        top_n: int | None,
        raw_scores: bool,
        priority: Priority,
    ) -> RerankQuery:
        """Checks the arguments of a call; raises `InvalidInput` if a type or a name is invalid."""
        _check_options(model, priority)
        _check_integer(top_n, "top_n")
        if isinstance(documents, str):
            raise InvalidInput("`documents` must be a sequence of strings; got a string", field="documents")
        return cls(_string(query, "query"), _strings(documents, "documents"), model, top_n, raw_scores, priority)


AnyQuery: TypeAlias = "Query | EmbedQuery | RerankQuery"


def question_pairs(question: str | Sequence[str], context: str | Sequence[str]) -> list[tuple[str, str]]:
    """Pairs questions with contexts; one of either goes with each of the other.

    Example:
        >>> question_pairs("Who?", ["Alice.", "The Queen."])
        [('Who?', 'Alice.'), ('Who?', 'The Queen.')]
    """
    questions = [question] if isinstance(question, str) else list(question)
    contexts = [context] if isinstance(context, str) else list(context)
    if isinstance(question, str):
        questions *= len(contexts)
    elif isinstance(context, str):
        contexts *= len(questions)
    if len(questions) != len(contexts):
        raise InvalidInput(
            f"`context` must have as many entries as `question`, {len(questions)}; got {len(contexts)}", field="context"
        )
    return list(zip(questions, contexts, strict=True))


def text_or_pairs(
    text: Texts | None, question: str | Sequence[str] | None, context: str | Sequence[str] | None
) -> Texts | None:
    """Returns the texts of a classification; raises `InvalidInput` unless question and context come together, alone."""
    if question is None and context is None:
        return text
    if question is None or context is None:
        missing = "question" if question is None else "context"
        raise InvalidInput(f"`question` and `context` must both be set; got no {missing}", field=missing)
    if text is not None:
        raise InvalidInput("`question` and `context` replace text; got both", field="text")
    return question_pairs(question, context)


def _aggregation(name: str | None) -> Aggregation | None:
    try:
        return None if name is None else Aggregation(name)
    except ValueError as error:
        valid = ", ".join(Aggregation)
        raise InvalidInput(f"`aggregation` must be one of {valid}; got another", field="aggregation") from error


def _rows(rows: Rows | None, field: str) -> list[IntArray] | None:
    return None if rows is None else [_row(row, f"{field}[{index}]") for index, row in enumerate(rows)]


def _row(row: Row, field: str) -> IntArray:
    array = np.asarray(row)
    if array.dtype == np.bool_ or array.shape == (0,):  # a mask; or [], which numpy reads as floats
        array = array.astype(np.int32)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InvalidInput(
            f"`{field}` must have 1 dimension of integers; got {array.ndim} of {array.dtype}", field=field
        )
    return array


def _check_integer(value: int | None, field: str) -> None:
    if value is not None and (type(value) is not int or not -(2**31) <= value < 2**31):
        raise InvalidInput(f"`{field}` must be an integer of 32 bits; got another value", field=field)


def _strings(texts: Sequence[object], field: str) -> list[str]:
    return [_string(text, f"{field}[{index}]") for index, text in enumerate(texts)]


def _string(text: object, field: str) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"`{field}` must be a string; got another type", field=field)
    return _encodable(text)


def _check_options(model: str | None, priority: str) -> None:
    if model is not None and _encodable(model) != model:
        raise InvalidInput("`model` must be text that UTF-8 can encode; got half a surrogate pair", field="model")
    if priority not in _PRIORITIES:
        raise InvalidInput(f"`priority` must be one of {', '.join(_PRIORITIES)}; got another", field="priority")


def _texts(text: Texts | None) -> list[str | tuple[str, str]] | None:
    if text is None:
        return None
    return [_text(part, index) for index, part in enumerate([text] if isinstance(text, str) else text)]


def _text(text: object, index: int) -> str | tuple[str, str]:
    match text:
        case str():
            return _encodable(text)
        case [str(first), str(second)]:
            return _encodable(first), _encodable(second)
    field = f"text[{index}]"
    raise InvalidInput(f"`{field}` must be a string or a pair of strings; got another type", field=field)


def _encodable(text: str) -> str:
    r"""Replaces halves of surrogate pairs, which UTF-8 cannot encode, with U+FFFD.

    Example:
        >>> _encodable("cut \ude00 emoji"), _encodable("whole \ud83d\ude00 emoji")
        ('cut � emoji', 'whole 😀 emoji')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def check_api_key(api_key: str) -> str:
    """Returns the key; raises `InvalidInput` if it is invalid in a header."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise InvalidInput("`api_key` must be printable ASCII; got other characters", field="api_key")
    return api_key


def _output(name: str) -> Output:
    try:
        return Output(name)
    except ValueError as error:
        raise InvalidInput(f"`outputs` must be of {', '.join(Output)}; got another", field="outputs") from error


def _truncation(name: str) -> Truncation:
    try:
        return Truncation(name)
    except ValueError as error:
        valid = ", ".join(Truncation)
        raise InvalidInput(f"`truncation` must be one of {valid}; got another", field="truncation") from error
