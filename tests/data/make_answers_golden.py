"""Makes `answers.json` next to this script, with the question-answering pipeline of transformers 4.

Version 5 has none, so this needs an environment of its own, with torch and transformers 4.57. From the repository's
root:

    python -m tests.data.make_answers_golden

It imports nothing of `service`. The model is a stand-in with the logits of `answer_logits`.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import torch
from transformers import ElectraConfig, ElectraForQuestionAnswering, ElectraTokenizerFast, QuestionAnsweringPipeline
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from tests.data.answer_logits import answer_logits

HERE = Path(__file__).parent
VOCABULARY = HERE / "vocabulary.txt"
BOOK = HERE.parents[1] / "tools/demo_preset/books/alice_in_wonderland.txt"
ODDITIES = (
    "Café Zoë — naïve façade; 日本語 and 한국어, 😀 Cafe\u0301! " * 3,
    "the the the THE the The the the the the",
)
OPTIONS = (
    {"top_k": 1, "max_answer_len": 15, "max_seq_len": 384, "doc_stride": 128},
    {"top_k": 5, "max_answer_len": 8, "max_seq_len": 64, "doc_stride": 16},
    {"top_k": 20, "max_answer_len": 30, "max_seq_len": 48, "doc_stride": 0},
)
QUESTIONS = ("Who said that to Alice?", "Where is the café?")


class StandIn(ElectraForQuestionAnswering):  # type: ignore[misc]  # transformers has no types
    """A model whose logits follow from the ids alone."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> QuestionAnsweringModelOutput:
        """Returns the logits."""
        logits = torch.tensor(answer_logits(input_ids[0].tolist()))[None]
        return QuestionAnsweringModelOutput(start_logits=logits[..., 0], end_logits=logits[..., 1])


def contexts() -> list[str]:
    """Passages of the book, and oddities."""
    passages = re.split(r"\n\s*\n", BOOK.read_text(encoding="utf-8"))
    long = [passage for passage in passages if len(passage) > 400]
    return [*random.Random(5).sample(long, 6), "\n\n".join(long[:3]), *ODDITIES]


def main() -> None:
    """Writes the file."""
    tokenizer = ElectraTokenizerFast(str(VOCABULARY), do_lower_case=True)
    config = ElectraConfig(num_hidden_layers=1, num_attention_heads=1, hidden_size=4, intermediate_size=4)
    pipeline = QuestionAnsweringPipeline(model=StandIn(config), tokenizer=tokenizer, device="cpu")
    cases = []
    for index, context in enumerate(contexts()):
        question, options = QUESTIONS[index % len(QUESTIONS)], OPTIONS[index % len(OPTIONS)]
        found = pipeline(question=question, context=context, **options)
        answers = found if isinstance(found, list) else [found]
        cases.append({"question": question, "context": context, **options, "answers": answers})
    (HERE / "answers.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
