"""The service as a process of its own, with an encoder and a classifier, for clients of the Open Inference Protocol.

Without the clients, which `make conformance-clients` installs, nothing here is collected. Each client registers
protobuf's package `inference` for its whole process, so each folder is a run of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.conformance_clients.served import ROOT, Served, serve
from tests.conformance_oip.samples import ALIAS, CLASSIFIER, ENCODER

if not find_spec("tritonclient"):
    collect_ignore_glob = ["*.py"]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service, which requires a key."""
    classifier = ROOT / "tests" / "data" / "transformers" / "classifier"
    models: list[dict[str, object]] = [
        {"preset": "electra_demo", "name": ENCODER, "aliases": [ALIAS], "dtype": "float32"},
        {"preset": str(classifier), "name": CLASSIFIER, "dtype": "float32"},
    ]
    with serve(tmp_path_factory.mktemp("served"), models) as service:
        yield service
