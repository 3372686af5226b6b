"""Checkpoints, heads, embeddings, conversions and tokenizers agree with transformers itself, on torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

from tests.conformance.head_checks import head_checks
from tests.conformance.transformers_checks import checks

if TYPE_CHECKING:
    from tests.conformance.transformers_checks import Check

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("check", [*checks(), *head_checks()], ids=lambda check: f"{check.source}: {check.verified}")
def test_it_agrees_with_transformers(check: Check, tmp_path: Path) -> None:
    finding = check.run(tmp_path)
    assert finding.worst <= finding.bound, finding
