"""Places replicas on devices, for engines that run on GPUs and CPUs."""

from __future__ import annotations

from electra_serve.errors import EngineUnavailable


def choose_devices(device: str, replicas: int, gpus: int, backend: str) -> list[str]:
    """Returns the device of each replica: on GPUs round-robin, from N for `gpu:N`.

    Example:
        >>> choose_devices("auto", 2, gpus=0, backend="JAX"), choose_devices("gpu:1", 2, gpus=2, backend="JAX")
        (['cpu', 'cpu'], ['gpu:1', 'gpu:0'])
    """
    if device == "cpu" or (device == "auto" and gpus == 0):
        return ["cpu"] * replicas
    first = device_index(device)
    if first >= gpus:
        raise EngineUnavailable(f"device must be cpu or one of the {gpus} GPUs that {backend} sees; got {device}")
    return [f"gpu:{(first + replica) % gpus}" for replica in range(replicas)]


def device_index(device: str) -> int:
    """Returns N of `gpu:N`, by default 0."""
    return int(device.partition(":")[2] or 0)
