"""Where replicas go, for engines that run on GPUs as well as on CPUs."""

from __future__ import annotations

from electra_serve.errors import EngineUnavailable


def choose_devices(device: str, replicas: int, gpus: int, backend: str) -> list[str]:
    """The device of each replica.

    Args:
        device: `auto`, `cpu`, `gpu` or `gpu:N`.
        replicas: How many to place; on GPUs one after the other, from N on and round again.
        gpus: How many GPUs there are.
        backend: Who says so, for the error.

    Raises:
        EngineUnavailable: A GPU is asked for that is not there.

    Example:
        >>> choose_devices("auto", 2, gpus=0, backend="JAX"), choose_devices("gpu:1", 2, gpus=2, backend="JAX")
        (['cpu', 'cpu'], ['gpu:1', 'gpu:0'])
    """
    if device == "cpu" or (device == "auto" and gpus == 0):
        return ["cpu"] * replicas
    first = device_index(device)
    if first >= gpus:
        raise EngineUnavailable(f"device must be cpu or one of {gpus} GPUs that {backend} sees; received {device}")
    return [f"gpu:{(first + replica) % gpus}" for replica in range(replicas)]


def device_index(device: str) -> int:
    """N of `gpu:N`; 0 where it is not said.

    Example:
        >>> device_index("gpu:3"), device_index("cpu")
        (3, 0)
    """
    return int(device.partition(":")[2] or 0)
