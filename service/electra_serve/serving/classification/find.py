"""Logits of a request's sequences to the labels, spans or answer spans of each of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.classification.answers import find_answers
from electra_serve.serving.classification.labels import label_sequence
from electra_serve.serving.classification.plan import Plan
from electra_serve.serving.classification.results import Label, Span, Window
from electra_serve.serving.classification.spans import label_spans, score_tokens
from electra_serve.serving.classification.step_runner import StepRunner
from electra_serve.serving.validation import Validated
from electra_serve.tensors import Encoding, Output, RowOutput, TextInput, TokenInput

Found = tuple[Label, ...] | tuple[Span, ...]
"""Result of one input: labels of a sequence, or spans."""
Texts = tuple[str, ...]

VALUES_PER_ITEM: Final = 16
"""Numbers that a label or a span counts as in the size of a response."""
CHARACTERS_PER_VALUE: Final = 4


async def find_all(
    runner: StepRunner, plan: Plan, sequences: TokenInput | TextInput, validated: Validated, rows: Sequence[RowOutput]
) -> list[Found]:
    """Finds the labels or spans of each input, in steps that leave the event loop free."""
    return await runner.run(find_in_steps(plan, sequences, validated, rows))


def find_in_steps(
    plan: Plan, sequences: TokenInput | TextInput, validated: Validated, rows: Sequence[RowOutput]
) -> Steps[list[Found]]:
    """Finds the labels or spans of each input, in steps."""
    found: list[Found] = []
    start = 0
    for index, count in enumerate(validated.windows or (1,) * len(rows)):
        if plan.head.output is Output.LOGITS:
            logits = rows[start].get(Output.LOGITS)
            labels = yield from label_sequence(logits, plan.head, top_k=plan.top_k, raw=plan.raw)
            found.append(labels)
        else:
            windows = [_window(validated, rows, at) for at in range(start, start + count)]
            spans = yield from _find_spans(plan, windows, _texts_of(sequences, index))
            found.append(spans)
        start += count
    return found


def _window(validated: Validated, rows: Sequence[RowOutput], at: int) -> Window:
    alignment = None if validated.alignments is None else validated.alignments[at]
    return Window(rows[at].get(Output.TOKEN_LOGITS), validated.encodings[at], alignment)


def _find_spans(plan: Plan, windows: Sequence[Window], texts: Texts | None) -> Steps[tuple[Span, ...]]:
    """Finds the spans of an input in its windows; `texts` is None if the request has ids."""
    match plan.head.kind:
        case "question_answering":
            context = None if texts is None else texts[1]
            spans = yield from find_answers(
                windows, context, top_k=plan.top_k or 1, max_length=plan.max_answer_length, raw=plan.raw
            )
        case "replaced_token_detection":
            spans = yield from score_tokens(windows[0], plan.head, texts, raw=plan.raw)
        case _:
            spans = yield from label_spans(windows, plan.head, texts, plan.aggregation, raw=plan.raw)
    return spans


def _texts_of(sequences: TokenInput | TextInput, index: int) -> Texts | None:
    """Returns the text of an input, or both of a pair; None if the request has ids."""
    if isinstance(sequences, TokenInput):
        return None
    text = sequences.texts[index]
    return (text,) if isinstance(text, str) else text


def count_values(plan: Plan, encodings: Sequence[Encoding], inputs: int) -> int:
    """Estimates the numbers that a result holds at most: logits, and labels or spans."""
    labels, positions = len(plan.head.labels), sum(map(len, encodings))
    match plan.head.kind:
        case "sequence_classification":
            return inputs * (labels + VALUES_PER_ITEM * min(plan.top_k or labels, labels))
        case "question_answering":
            return positions * labels + VALUES_PER_ITEM * inputs * (plan.top_k or 1)
        case _:
            return positions * (labels + VALUES_PER_ITEM)


def characters_of(found: Found) -> int:
    """Returns the characters of all spans."""
    return sum(len(item.text or "") for item in found if isinstance(item, Span))
