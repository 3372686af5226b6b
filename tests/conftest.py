"""Keeps every test away from public hubs and from this machine's own cache of presets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def offline_by_default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever wants a hub says which."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELECTRA_HUB__OFFLINE", "true")
        patch.setenv("ELECTRA_HUB__CACHE_DIR", str(tmp_path_factory.mktemp("presets")))
        yield
