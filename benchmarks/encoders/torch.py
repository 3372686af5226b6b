"""transformers' ELECTRA on torch, with its fused attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.encoders.base import PaddingEncoder
from benchmarks.machine import cores
from benchmarks.weights import checkpoint_folder
from electra_serve.tensors import Batch, ModelOutput, Output, Outputs


class TorchEncoder(PaddingEncoder):
    """Runs transformers' model, and the pooler that transformers' ELECTRA does not have.

    Args:
        model: An `ElectraModel`.
        pooler: A `torch.nn.Linear`.
        device: Where both are.
    """

    def __init__(self, model: Any, pooler: Any, device: str) -> None:
        import torch

        self._torch = torch
        self._model = model
        self._pooler = pooler
        self._device = device

    def run_one(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `PaddingEncoder.run_one`; copies `sequence_output` to the host only if requested."""
        torch = self._torch
        with torch.inference_mode():
            hidden = self._model(
                input_ids=self._tensor(batch.token_ids),
                token_type_ids=self._tensor(batch.segment_ids),
                attention_mask=self._tensor(batch.padding_mask),
            ).last_hidden_state  # (R, P, H)
            pooled = torch.tanh(self._pooler(hidden[:, :1]))  # (R, 1, H)
            sequence = _numpy(hidden) if Output.SEQUENCE in outputs else None
            return ModelOutput(sequence_output=sequence, pooled_output=_numpy(pooled))

    def _tensor(self, ids: Any) -> Any:
        return self._torch.from_numpy(ids).to(self._device, self._torch.int64)


def build_torch(size: str, *, dtype: str, device: str = "cpu", compiled: bool = False) -> TorchEncoder:
    """The checkpoint with SDPA, for inference, on every core; `compiled`: by `torch.compile`, once for all shapes."""
    import torch

    torch.set_num_threads(cores())
    model, pooler = load_torch(size, attention="sdpa")
    kind = getattr(torch, dtype)
    model = model.to(device, kind)
    if compiled:
        model = torch.compile(model, dynamic=True)
    return TorchEncoder(model, pooler.to(device, kind), device)


def load_torch(size: str, *, attention: str) -> tuple[Any, Any]:
    """Loads transformers' model and its separate pooler, float32."""
    import torch
    import transformers
    from safetensors.torch import load_file

    transformers.logging.set_verbosity_error()  # it warns of the pooler, which it leaves unread
    transformers.logging.disable_progress_bar()
    folder = checkpoint_folder(size)
    weights = load_file(folder / "model.safetensors")
    model = transformers.ElectraModel.from_pretrained(folder, attn_implementation=attention).eval()
    width = model.config.hidden_size
    pooler = torch.nn.Linear(width, width)
    pooler.load_state_dict({name: weights[f"pooler.dense.{name}"] for name in ("weight", "bias")})
    return model, pooler.eval()


def _numpy(tensor: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    array: np.ndarray[Any, np.dtype[np.float32]] = tensor.float().cpu().numpy()
    return array
