"""Models of the REST tests' fake service."""

from __future__ import annotations

from electra_serve.presets.config import BackboneConfig
from electra_serve.serving.model_info import ModelInfo, ModelLimits, ModelState, ShapeCost
from tests.fake_service import FakeService

CONFIG = BackboneConfig(
    vocab_size=100, num_layers=1, num_heads=1, hidden_dim=2, embedding_dim=2, intermediate_dim=4, max_sequence_length=16
)
READY_MODEL = ModelInfo(
    name="electra_demo",
    preset="electra_demo",
    state=ModelState.READY,
    source="embedded",
    revision="0123456789ab",
    weights="random",
    config=CONFIG,
    parameters=CONFIG.parameters,
    limits=ModelLimits(max_sequences=4, max_sequence_length=16),
    engine="fake",
    device="cpu",
    dtype="float32",
    replicas=1,
    text=True,
    load_seconds=0.5,
    batch_shapes=(ShapeCost(1, 16, 1e-3), ShapeCost(4, 128, 1e-2)),
    pooler="random",
    batch_tokens=4096,
    aliases=("other",),
)


def demo_service() -> FakeService:
    """Makes a service of `electra_demo` and of a model that loads."""
    return FakeService(READY_MODEL, ModelInfo(name="next", preset="next", state=ModelState.LOADING))
