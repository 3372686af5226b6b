"""The service as a process of its own, with a sentence encoder and a cross-encoder, for stock clients.

Without the clients, which `make conformance-clients` installs, nothing here is collected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.conformance_clients.served import Served, serve

# Before any client is imported: none of them may look for a network
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}

collect_ignore_glob = [] if find_spec("litellm") else ["*.py"]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service, which requires a key."""
    from tests.conformance_clients.checkpoints import encoder_folder, save_cross_encoder

    folder = tmp_path_factory.mktemp("served")
    save_cross_encoder(folder / "ranker")
    encoder = {"preset": str(encoder_folder()), "name": "encoder", "aliases": ["text-embedding-3-small"]}
    ranker = {"preset": str(folder / "ranker"), "name": "ranker"}
    models: list[dict[str, object]] = [{**encoder, "dtype": "float32"}, {**ranker, "dtype": "float32"}]
    with serve(folder, models, "--apis.tei_model=encoder") as service:
        yield service
