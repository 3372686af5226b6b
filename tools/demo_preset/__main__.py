"""Makes `electra_demo`: `python -m tools.demo_preset`. Intermediate results are kept in build/demo_preset.

An interrupted training goes on at its last checkpoint. With the option `--evaluate`, only measures the checkpoint.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tools.demo_preset import corpus, evaluate, sources, vocabulary
from tools.demo_preset.export import EMBEDDED, export
from tools.demo_preset.student import Student
from tools.demo_preset.train import HELD_OUT, MAX_PIECES, SEED, Batches, Labeler, initial_student, padded, train

BUILD: Final = Path(__file__).parents[2] / "build/demo_preset"
CHECKPOINT: Final = BUILD / "checkpoint.pt"


def main() -> None:
    """Runs every step; those that are done are skipped."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_preset", description=__doc__)
    parser.add_argument("--evaluate", action="store_true", help="measure the last checkpoint, without training")
    flags = parser.parse_args()
    torch.set_num_threads(2)
    sources.download(BUILD / "sources")
    texts = corpus.build(BUILD / "sources", BUILD / "corpus.json")
    pieces = vocabulary.train(texts.texts, BUILD / "vocabulary.txt")
    tokenizer = vocabulary.tokenizer(pieces)
    ids = [encoding.ids[:MAX_PIECES] for encoding in tokenizer.encode_batch(texts.texts)]
    print(f"{len(texts.texts)} texts of {sum(map(len, ids)) / len(ids):.1f} pieces", flush=True)
    labeler = Labeler(texts, ids, BUILD / "labels")
    student = initial_student(pieces, labeler, BUILD / "labels/pieces.npy")
    average = torch.load(CHECKPOINT)["average"] if flags.evaluate else train(student, Batches(labeler), CHECKPOINT)
    export({name: tensor.numpy() for name, tensor in average.items()}, BUILD / "vocabulary.txt", EMBEDDED)
    report(student, average, labeler, tokenizer, texts.texts[-HELD_OUT:])


def report(
    student: Student,
    average: dict[str, torch.Tensor],
    labeler: Labeler,
    tokenizer: Tokenizer,
    held_out: list[str],
) -> None:
    """Prints the figures of teacher, student and random weights."""
    teacher = labeler.teacher.embed

    def embed(texts: list[str]) -> NDArray[np.float32]:
        return embedded(student, tokenizer, texts)

    data = evaluate.store_teacher(teacher)
    print("teacher:", data["teacher"])
    student.load_state_dict(average)
    spearman = evaluate.spearman(embed, teacher, held_out)
    print("student:", evaluate.figures(embed, data), f"Spearman {spearman:.4f}")
    torch.manual_seed(SEED)
    student.load_state_dict(Student(student.embeddings["word_embeddings"].num_embeddings).state_dict())
    spearman = evaluate.spearman(embed, teacher, held_out)
    print("random:", evaluate.figures(embed, data), f"Spearman {spearman:.4f}")
    print(json.dumps({"steps": torch.load(CHECKPOINT)["step"], "texts": torch.load(CHECKPOINT)["texts"]}))


def embedded(student: Student, tokenizer: Tokenizer, texts: list[str]) -> NDArray[np.float32]:
    """Returns normalized embeddings of `texts`."""
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), 64):
            rows = [
                [vocabulary.CLS, *encoding.ids[:510], vocabulary.SEP]
                for encoding in tokenizer.encode_batch(texts[start : start + 64])
            ]
            found.append(student(*padded(rows, [[0] * len(row) for row in rows])).numpy())
    vectors = np.concatenate(found)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
