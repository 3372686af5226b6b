"""The code of docs/clients.md runs as it is printed."""

from __future__ import annotations

import pytest

from tests.conformance_clients.docs_code import run
from tests.conformance_clients.served import Served
from tests.conformance_oip.samples import check, expected


@pytest.mark.parametrize("name", ["Triton over REST", "Triton over gRPC"])
def test_code(name: str, served: Served) -> None:
    names = run(name, served)
    check(names["vectors"], expected(served, "embedding", text=names["texts"]))
