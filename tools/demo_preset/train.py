"""Trains the student: a fixed number of steps with fixed seeds, resumable from checkpoints.

The loss on `mean_output` has three terms. One is the distance to the projected teacher, 1 - cosine. The others compare
the batch's cosines by 10 times their MSE, and by 0.3 times the KL divergence of similarity distributions. Batches have
texts of similar length. Two of three come from a few clusters, so that they contain hard negatives; the others are
random. Some batches are pairs of texts in two segments, and some are long texts. Their target is the normalized sum of
the targets of their parts.

The first `BAG_STEPS` train embeddings and norms only, which is fast. Texts are labeled in shards while the training
runs: step `s` uses the first `visible_shards(s)`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tools.demo_preset.corpus import Corpus
from tools.demo_preset.shape import EMBEDDING, HIDDEN, POSITIONS
from tools.demo_preset.student import Student
from tools.demo_preset.teacher import Teacher, labels
from tools.demo_preset.vocabulary import CLS, PAD, SEP

SEED: Final = 20260101
BAG_STEPS, STEPS, FALL = 2000, 4400, 1000  # the learning rate falls in the last ones
BAG_BATCH, BATCH = 256, 128
SHARD: Final = 8192  # texts labeled at a time
FIRST_SHARDS, SHARDS, STEPS_PER_SHARD = 5, 8, 200
HELD_OUT: Final = 2000  # texts at the corpus' end, for the evaluation
MAX_PIECES: Final = 62  # of a single text
LEARNING_RATE, WARM_UP, FINAL_RATE = 1.5e-3, 200, 0.01
WEIGHT_DECAY: Final = 0.01
AVERAGE_DECAY: Final = 0.998
TEMPERATURE: Final = 0.05
PAIRS_EVERY, LONG_EVERY = 9, 12
CLUSTERS: Final = 1200
BUCKETS: Final = (7, 9, 11, 13, 16, 20, 26, 36, 64)
CHECKPOINT_SECONDS: Final = 150

Arrays = tuple[list[list[int]], list[list[int]], NDArray[np.float32]]  # ids, segments, targets


@dataclass(slots=True)
class Pool:
    """Labeled texts: ids without special pieces, targets and clusters."""

    ids: list[list[int]]
    documents: list[tuple[int, int]]
    targets: NDArray[np.float32]  # (texts, HIDDEN), normalized
    clusters: NDArray[np.int64]
    members: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, cluster in enumerate(self.clusters.tolist()):
            self.members.setdefault(cluster, []).append(i)


class Labeler:
    """Labels shards of the corpus, and projects labels to the student's width by principal components."""

    def __init__(self, corpus: Corpus, ids: list[list[int]], folder: Path) -> None:
        self._corpus, self._ids, self._folder = corpus, ids, folder
        self.teacher = Teacher()
        first = np.concatenate([self._shard(i) for i in range(FIRST_SHARDS)])
        self._components = principal_components(first, HIDDEN)
        self._centers = k_means(self.project(first), CLUSTERS)
        self._targets: list[NDArray[np.float32]] = []
        self._clusters: list[NDArray[np.int64]] = []

    @property
    def shards(self) -> int:
        """Number of shards that are trained on."""
        return min(SHARDS, (len(self._corpus.texts) - HELD_OUT) // SHARD)

    def project(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps the teacher's embeddings to normalized targets."""
        projected = embeddings @ self._components
        return np.asarray(projected / np.linalg.norm(projected, axis=1, keepdims=True), np.float32)

    def pool(self, shards: int) -> Pool:
        """Returns the first `shards` shards, labeled."""
        for i in range(len(self._targets), shards):
            self._targets.append(self.project(self._shard(i)))
            self._clusters.append(np.argmax(self._targets[-1] @ self._centers.T, axis=1))
        targets = np.concatenate(self._targets[:shards])
        size = len(targets)
        documents = [(start, end) for start, end in self._corpus.documents if end <= size]
        return Pool(self._ids[:size], documents, targets, np.concatenate(self._clusters[:shards]))

    def _shard(self, i: int) -> NDArray[np.float32]:
        texts = self._corpus.texts[i * SHARD : (i + 1) * SHARD]
        return labels(self.teacher, texts, self._folder / f"{i:03}.npy")


def principal_components(embeddings: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Returns the main directions of embeddings around the origin, (their width, `width`)."""
    _, vectors = np.linalg.eigh(embeddings.T.astype(np.float64) @ embeddings)
    return vectors[:, ::-1][:, :width].astype(np.float32)


def k_means(vectors: NDArray[np.float32], number: int, rounds: int = 6) -> NDArray[np.float32]:
    """Returns centers of normalized vectors by cosine."""
    generator = np.random.default_rng(SEED)
    centers = vectors[generator.choice(len(vectors), number, replace=False)]
    for _ in range(rounds):
        nearest = np.argmax(vectors @ centers.T, axis=1)
        sums = np.zeros_like(centers)
        np.add.at(sums, nearest, vectors)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(norms > 0, sums / np.maximum(norms, 1e-6), centers)
    return centers


def visible_shards(step: int, shards: int) -> int:
    """Number of shards that a step may use."""
    return min(shards, FIRST_SHARDS + max(0, step - BAG_STEPS) // STEPS_PER_SHARD)


class Batches:
    """Random batches of a pool, from the seed and the step; a resumed training draws others."""

    def __init__(self, labeler: Labeler) -> None:
        self._labeler = labeler
        self._pool: Pool | None = None
        self._source = (0, 0)  # shards and size of a batch
        self._queue: dict[bool, Iterator[list[int]]] = {}

    def draw(self, step: int) -> Arrays:
        """Returns the batch of a step."""
        size = BAG_BATCH if step < BAG_STEPS else BATCH
        shards = visible_shards(step, self._labeler.shards)
        if (shards, size) != self._source:
            self._pool, self._source, self._queue = self._labeler.pool(shards), (shards, size), {}
        assert self._pool is not None  # noqa: S101
        generator = random.Random(SEED + step)  # noqa: S311
        if step % LONG_EVERY == LONG_EVERY - 1:
            return self._long(self._pool, generator, size // 16)
        rows = self._rows(self._pool, generator, clustered=step % 3 > 0)
        if step % PAIRS_EVERY == PAIRS_EVERY - 1:
            return self._pairs(self._pool, rows, generator)
        ids = [[CLS, *self._pool.ids[i], SEP] for i in rows]
        return ids, [[0] * len(row) for row in ids], self._pool.targets[rows]

    def _rows(self, pool: Pool, generator: random.Random, *, clustered: bool) -> list[int]:
        rows = next(self._queue.get(clustered, iter(())), None)
        if rows is None:
            self._queue[clustered] = iter(_batches(pool, self._source[1], generator, clustered=clustered))
            rows = next(self._queue[clustered])
        return rows

    def _pairs(self, pool: Pool, rows: list[int], generator: random.Random) -> Arrays:
        """Pairs, and each part alone."""
        generator.shuffle(rows)
        pairs = len(rows) // 4
        firsts, seconds = rows[:pairs], rows[pairs : 2 * pairs]
        both = list(zip(firsts, seconds, strict=True))
        ids = [[CLS, *pool.ids[a], SEP, *pool.ids[b], SEP] for a, b in both]
        segments = [[0] * (len(pool.ids[a]) + 2) + [1] * (len(pool.ids[b]) + 1) for a, b in both]
        alone = [*firsts, *seconds]
        ids += [[CLS, *pool.ids[i], SEP] for i in alone]
        segments += [[0] * (len(pool.ids[i]) + 2) for i in alone]
        sums = _normalized(pool.targets[firsts] + pool.targets[seconds])
        return ids, segments, np.concatenate([sums, pool.targets[alone]])

    def _long(self, pool: Pool, generator: random.Random, number: int) -> Arrays:
        """Long texts, and the first half of each."""
        ids, targets = [], []
        for _ in range(number):
            limit = generator.choice((96, 160, 224, 320, POSITIONS - 2))
            rows = generator.choice((_consecutive, _related, _any))(pool, generator)
            taken: list[int] = []
            length = 0
            for row in rows:
                if taken and length + len(pool.ids[row]) > limit:
                    break
                taken.append(row)
                length += len(pool.ids[row])
            for part in (taken, taken[: (len(taken) + 1) // 2]):
                pieces = [piece for row in part for piece in pool.ids[row]][: POSITIONS - 2]
                ids.append([CLS, *pieces, SEP])
                weights = np.array([[len(pool.ids[row])] for row in part], np.float32)
                targets.append((pool.targets[part] * weights).sum(0))
        return ids, [[0] * len(row) for row in ids], _normalized(np.stack(targets))


def _consecutive(pool: Pool, generator: random.Random) -> list[int]:
    start, end = generator.choice(pool.documents)
    return list(range(generator.randrange(start, max(start + 1, end - 4)), end))


def _related(pool: Pool, generator: random.Random) -> list[int]:
    rows = pool.members[generator.choice(list(pool.members))]
    return generator.sample(rows, min(60, len(rows)))


def _any(pool: Pool, generator: random.Random) -> list[int]:
    return generator.sample(range(len(pool.ids)), 60)


def _batches(pool: Pool, size: int, generator: random.Random, *, clustered: bool) -> list[list[int]]:
    """All texts in batches of similar length, each of texts of few clusters or of any."""
    order = np.array([generator.random() for _ in range(CLUSTERS)])
    noise = np.array([generator.random() for _ in pool.ids])
    lengths = np.digitize([len(row) for row in pool.ids], BUCKETS)
    keys = (noise, order[pool.clusters], lengths) if clustered else (noise, lengths)
    rows = np.lexsort(keys)
    batches = [rows[i : i + size].tolist() for i in range(0, len(rows) - size + 1, size)]
    generator.shuffle(batches)
    return batches


def _normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def padded(ids: list[list[int]], segments: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ids, segments and mask, each (B, T)."""
    length = max(map(len, ids))
    return (
        torch.tensor([row + [PAD] * (length - len(row)) for row in ids]),
        torch.tensor([row + [0] * (length - len(row)) for row in segments]),
        torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in ids]),
    )


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The training loss; see the module."""
    outputs = functional.normalize(outputs, dim=1)
    direct = (1 - (outputs * targets).sum(1)).mean()
    ours, theirs = outputs @ outputs.T, targets @ targets.T
    off = ~torch.eye(len(ours), dtype=torch.bool)
    squared = functional.mse_loss(ours[off], theirs[off])
    hidden = ~off
    log_ours = functional.log_softmax((ours / TEMPERATURE).masked_fill(hidden, -1e4), dim=1)
    log_theirs = functional.log_softmax((theirs / TEMPERATURE).masked_fill(hidden, -1e4), dim=1)
    divergence = functional.kl_div(log_ours, log_theirs, reduction="batchmean", log_target=True)
    return direct + 10 * squared + 0.3 * divergence


def learning_rate(step: int) -> float:
    """Rate of a step: a rise, constant, and at the end a fall; twice as high for the bag of words."""
    if step < BAG_STEPS:
        return 2 * LEARNING_RATE * min(1, (step + 1) / WARM_UP, (BAG_STEPS - step) / WARM_UP)
    return LEARNING_RATE * min(1, (step - BAG_STEPS + 1) / WARM_UP, max(FINAL_RATE, (STEPS - step) / FALL))


def initial_student(pieces: list[str], labeler: Labeler, path: Path) -> Student:
    """Returns the untrained student. Word embeddings are main components of the teacher's embeddings of pieces."""
    torch.manual_seed(SEED)
    student = Student(len(pieces))
    words = labels(labeler.teacher, [piece.removeprefix("##") for piece in pieces], path)
    words = words - words.mean(0)
    values = words @ principal_components(words, EMBEDDING)
    values /= values.std()
    with torch.no_grad():
        student.embeddings["word_embeddings"].weight.copy_(torch.from_numpy(values * 0.1))
    return student


def train(student: Student, batches: Batches, checkpoint: Path, log: Any = print) -> dict[str, Tensor]:
    """Trains up to `STEPS`, from `checkpoint` on if there is one; returns the averaged weights."""
    decayed = [weight for weight in student.parameters() if weight.ndim > 1]
    others = [weight for weight in student.parameters() if weight.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
        fused=True,
    )
    average = {name: value.clone() for name, value in student.state_dict().items()}
    start, texts, seconds = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        average, start, texts, seconds = state["average"], state["step"], state["texts"], state["seconds"]
    began = saved = time.monotonic()
    losses: list[float] = []
    for step in range(start, STEPS):
        ids, segments, targets = batches.draw(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        result = loss(student(*padded(ids, segments), bag=step < BAG_STEPS), torch.from_numpy(targets))
        optimizer.zero_grad(set_to_none=True)
        result.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            decay = min(AVERAGE_DECAY, (step + 1) / (step + 10))
            for name, value in student.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        texts += len(ids)
        losses.append(result.item())
        if step % 25 == 24 or step == STEPS - 1:
            elapsed = seconds + time.monotonic() - began
            log(f"step {step + 1}, {texts} texts, {elapsed:.0f} s, loss {np.mean(losses[-25:]):.4f}", flush=True)
        if time.monotonic() - saved > CHECKPOINT_SECONDS or step == STEPS - 1:
            saved = time.monotonic()
            state = {
                "student": student.state_dict(), "optimizer": optimizer.state_dict(), "average": average,
                "step": step + 1, "texts": texts, "seconds": seconds + saved - began,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").rename(checkpoint)
    return average
