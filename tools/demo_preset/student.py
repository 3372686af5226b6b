"""The student in torch: ELECTRA's encoder, with transformers' names of tensors.

Its output is the mean over unmasked positions, `mean_output` of the service. GELU has the tanh form, as in KerasHub.
At first, attention and feed-forward add nothing. Until they are trained, `bag` computes the same without them, at a
tenth of the time: a bag of words.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.demo_preset.shape import EMBEDDING, HEADS, HIDDEN, INTERMEDIATE, LAYERS, POSITIONS

EPSILON: Final = 1e-12


class Student(nn.Module):
    """Encoder of token ids, segments and a mask, each (B, T), to (B, `HIDDEN`)."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary_size, EMBEDDING),
                "position_embeddings": nn.Embedding(POSITIONS, EMBEDDING),
                "token_type_embeddings": nn.Embedding(2, EMBEDDING),
                "LayerNorm": nn.LayerNorm(EMBEDDING, EPSILON),
            }
        )
        self.embeddings_project = nn.Linear(EMBEDDING, HIDDEN)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})
        self.apply(_initialize)
        for layer in self.encoder["layer"]:
            nn.init.zeros_(layer.attention["output"]["dense"].weight)
            nn.init.zeros_(layer.output["dense"].weight)

    def forward(self, ids: Tensor, segments: Tensor, mask: Tensor, *, bag: bool = False) -> Tensor:
        """See the class."""
        positions = torch.arange(ids.shape[1])
        parts = self.embeddings
        x = parts["word_embeddings"](ids) + parts["position_embeddings"](positions)
        x = parts["LayerNorm"](x + parts["token_type_embeddings"](segments))
        x = self.embeddings_project(x)
        full = bool(mask.all())
        for layer in self.encoder["layer"]:
            x = layer.norms(x) if bag else layer(x, None if full else mask[:, None, None, :])
        weights = mask[..., None].to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)


class Layer(nn.Module):
    """Post-norm transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.LayerNorm(HIDDEN, EPSILON)
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(HIDDEN, HIDDEN) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict({"dense": nn.Linear(HIDDEN, HIDDEN), "LayerNorm": norm}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(HIDDEN, INTERMEDIATE)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(INTERMEDIATE, HIDDEN), "LayerNorm": nn.LayerNorm(HIDDEN, EPSILON)}
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Maps (B, T, `HIDDEN`) to the same shape; `mask` is (B, 1, 1, T), True for keys."""
        batch, length, _ = x.shape
        own = self.attention["self"]
        query, key, value = (
            own[name](x).view(batch, length, HEADS, -1).transpose(1, 2) for name in ("query", "key", "value")
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        after = self.attention["output"]
        x = after["LayerNorm"](x + after["dense"](attended.transpose(1, 2).reshape(batch, length, HIDDEN)))
        inner = functional.gelu(self.intermediate["dense"](x), approximate="tanh")
        return self.output["LayerNorm"](x + self.output["dense"](inner))

    def norms(self, x: Tensor) -> Tensor:
        """Returns what `forward` does while attention and feed-forward are zeros."""
        return self.output["LayerNorm"](self.attention["output"]["LayerNorm"](x))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.05)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
