"""Client of the admin API, which loads, reloads and unloads models."""

from __future__ import annotations

from typing import Any, Final, Self

import httpx

KEY: Final = "0123456789abcdef0123456789abcdef"
TIMEOUT_S: Final = 120.0
MODELS: Final = "/admin/v1/models"


class Operator:
    """Sends requests to the admin API and waits for their results.

    Args:
        port: Port of the admin API.
        key: API key.
    """

    def __init__(self, port: int, key: str = KEY) -> None:
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def load(self, preset: str, name: str) -> httpx.Response:
        """Loads a model under a new name."""
        return self._client.post(MODELS, json={"preset": preset, "name": name})

    def reload(self, name: str, preset: str) -> httpx.Response:
        """Replaces a model."""
        return self._client.post(f"{MODELS}/{name}/reload", json={"preset": preset})

    def unload(self, name: str) -> httpx.Response:
        """Unloads a model."""
        return self._client.delete(f"{MODELS}/{name}")

    def status(self, name: str) -> dict[str, Any]:
        """Returns the status of a model."""
        status: dict[str, Any] = self._client.get(f"{MODELS}/{name}").json()
        return status

    def names(self) -> list[str]:
        """Returns the names of all models."""
        return [model["name"] for model in self._client.get(MODELS).json()["models"]]
