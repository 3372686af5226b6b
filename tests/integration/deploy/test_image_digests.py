"""Images pinned by digest: found in the files, with digests written after their tags."""

from __future__ import annotations

import re

import pytest

from tools.image_digests import FILES, pinned, unpinned

DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_every_foreign_image_is_found() -> None:
    found = [
        image.partition(":")[0] for file in FILES for image in unpinned(re.sub(r"@sha256:\w+", "", file.read_text()))
    ]
    assert found == ["python", "prom/prometheus", "grafana/grafana"]
    assert [image for file in FILES for image in unpinned(pinned(file.read_text(), lambda _: DIGEST))] == []


def test_a_pin_is_moved_and_the_rest_stays() -> None:
    text = "FROM python:3 AS base\nFROM base AS runtime\n    image: electra-serve:local\n    image: g/g:1.2.3\n"
    once = pinned(text, lambda _: DIGEST)
    assert once.replace(f"@{DIGEST}", "") == text
    assert once.count(DIGEST) == 2
    other = DIGEST.replace("0", "9")
    assert pinned(once, lambda _: other) == once.replace(DIGEST, other)


def test_what_is_no_digest_is_not_written() -> None:
    with pytest.raises(ValueError, match="python:3: a digest is sha256"):
        pinned("FROM python:3\n", lambda _: "latest")
