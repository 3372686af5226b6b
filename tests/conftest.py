"""Keeps every test away from public hubs and this machine's own cache of presets, and from how fast this machine is."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

# A busy machine takes seconds for what takes milliseconds: no test may fail of that.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def offline_by_default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Disables hubs, unless a test sets one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELECTRA_HUB__OFFLINE", "true")
        patch.setenv("ELECTRA_HUB__CACHE_DIR", str(tmp_path_factory.mktemp("presets")))
        yield
