"""Each replica gets its device."""

from __future__ import annotations

import pytest

from electra_serve.engine.keras.placement import choose_devices
from electra_serve.errors import EngineUnavailable


@pytest.mark.parametrize(
    ("device", "replicas", "gpus", "chosen"),
    [
        ("auto", 1, 0, ["cpu"]),
        ("cpu", 2, 4, ["cpu", "cpu"]),
        ("auto", 1, 1, ["gpu:0"]),
        ("gpu", 3, 2, ["gpu:0", "gpu:1", "gpu:0"]),
        ("gpu:1", 2, 2, ["gpu:1", "gpu:0"]),
    ],
)
def test_replicas_go_round_the_devices(device: str, replicas: int, gpus: int, chosen: list[str]) -> None:
    assert choose_devices(device, replicas, gpus, backend="JAX") == chosen


@pytest.mark.parametrize(("device", "gpus"), [("gpu", 0), ("gpu:0", 0), ("gpu:2", 2)])
def test_a_missing_gpu_is_rejected(device: str, gpus: int) -> None:
    with pytest.raises(EngineUnavailable, match=f"one of the {gpus} GPUs that JAX sees; got {device}"):
        choose_devices(device, 1, gpus, backend="JAX")
