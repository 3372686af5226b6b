"""Checks a request for a classification against the model's head, and completes its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from electra_serve.errors import InvalidInput
from electra_serve.presets.heads import HeadConfig, HeadKind
from electra_serve.serving.classification.results import (
    DEFAULT_MAX_ANSWER_LENGTH,
    DEFAULT_STRIDE,
    ClassifyOptions,
)
from electra_serve.tensors import Aggregation, TextInput, TokenInput, Truncation

MAX_TOP_K: Final = 65_536
MAX_ANSWERS: Final = 100
MAX_ANSWER_LENGTH: Final = 512
MAX_STRIDE: Final = 65_536

BOUNDS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {"top_k": (1, MAX_TOP_K), "stride": (0, MAX_STRIDE), "max_answer_length": (1, MAX_ANSWER_LENGTH)}
)
"""Least and most of each option that is a number."""
OPTIONS: Final[Mapping[HeadKind, frozenset[str]]] = MappingProxyType(
    {
        "sequence_classification": frozenset({"top_k"}),
        "token_classification": frozenset({"aggregation", "stride"}),
        "question_answering": frozenset({"top_k", "stride", "max_answer_length"}),
        "replaced_token_detection": frozenset(),
    }
)
"""Options of each head, apart from `raw_scores`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of a request for a head, all of them set.

    Attributes:
        top_k: None for all labels.
        stride: Ids that windows share; None if a text is one sequence.
        aligned: True if the offsets of texts are needed.
    """

    head: HeadConfig
    top_k: int | None
    raw: bool
    aggregation: Aggregation
    stride: int | None
    max_answer_length: int
    aligned: bool


def make_plan(
    head: HeadConfig,
    options: ClassifyOptions,
    sequences: TokenInput | TextInput,
    truncation: Truncation,
    longest: int,
) -> Plan:
    """Completes the options of a request; `longest` is the limit of its sequences.

    Raises:
        InvalidInput: An option is out of range, is of another head, or does not fit the input.
    """
    _check_options(head.kind, options)
    texts = isinstance(sequences, TextInput)
    stride, aggregation = options.stride, options.aggregation or Aggregation.SIMPLE
    if head.kind == "question_answering":
        _check_context(sequences)
        if texts and stride is None:
            stride = min(DEFAULT_STRIDE, longest // 2)
    elif head.kind == "token_classification":
        _check_aggregation(aggregation, stride, texts=texts)
    if stride is not None and not texts:
        raise InvalidInput("stride needs texts, which are cut into windows; got token_ids", field="stride")
    if stride is not None and truncation is not Truncation.NONE:
        raise InvalidInput(
            f"truncation must be none for texts that are cut into windows; got {truncation}", field="truncation"
        )
    return Plan(
        head=head,
        top_k=_top_k(head.kind, options.top_k),
        raw=options.raw_scores,
        aggregation=aggregation,
        stride=stride,
        max_answer_length=options.max_answer_length or DEFAULT_MAX_ANSWER_LENGTH,
        aligned=texts and head.kind != "sequence_classification",
    )


def _check_options(kind: HeadKind, options: ClassifyOptions) -> None:
    for name, (least, most) in BOUNDS.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise InvalidInput(f"{name} must be from {least} to {most}; got {value}", field=name)
    for name in ("top_k", "aggregation", "stride", "max_answer_length"):
        if getattr(options, name) is not None and name not in OPTIONS[kind]:
            valid = ", ".join((*sorted(OPTIONS[kind]), "raw_scores"))
            raise InvalidInput(f"options of a {kind} model must be among {valid}; got {name}", field=name)


def _top_k(kind: HeadKind, given: int | None) -> int | None:
    if kind != "question_answering":
        return given
    if given is not None and given > MAX_ANSWERS:
        raise InvalidInput(f"top_k must be from 1 to {MAX_ANSWERS} for question answering; got {given}", field="top_k")
    return given or 1


def _check_context(sequences: TokenInput | TextInput) -> None:
    if isinstance(sequences, TextInput):
        for index, text in enumerate(sequences.texts):
            if isinstance(text, str):
                raise InvalidInput(
                    "question answering needs a question and a context; got a text without a second",
                    field=f"text[{index}]",
                )
        return
    if sequences.segment_ids is None:
        raise InvalidInput(
            "question answering of token_ids needs segment_ids, 1 for the context; got none", field="segment_ids"
        )
    for index, row in enumerate(sequences.segment_ids):
        if not (row == 1).any():
            raise InvalidInput(
                "question answering needs a context, ids of segment 1; got none", field=f"segment_ids[{index}]"
            )


def _check_aggregation(aggregation: Aggregation, stride: int | None, *, texts: bool) -> None:
    if aggregation is Aggregation.FIRST and not texts:
        raise InvalidInput("aggregation first needs texts, which have words; got token_ids", field="aggregation")
    if aggregation is Aggregation.NONE and stride is not None:
        raise InvalidInput(
            "aggregation must be simple or first for texts that are cut into windows; got none", field="aggregation"
        )
