"""Files of the pages: their contents, media types and entity tags.

`static` has our own files, and `swagger_ui` those of Swagger UI as npm has them; `vendored.json` records their digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
SWAGGER_UI: Final = Path(__file__).parent / "swagger_ui"
SERVED: Final = ("swagger-ui-bundle.js", "swagger-ui.css")
"""Files of Swagger UI that browsers load; the others are licenses."""
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FACTS: Final = b"{}</script>"


@dataclass(frozen=True, slots=True)
class PageFacts:
    """Settings of the service that the page needs; they are no secrets."""

    version: str
    metrics: bool  # `/metrics` is on this port
    keyed: bool  # requests need an API key
    openai: bool
    rerank: bool
    grpc_port: int  # 0 if the system chooses one


@dataclass(frozen=True, slots=True)
class Asset:
    """A file."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, content: bytes, suffix: str) -> Asset:
        """Describes contents."""
        return cls(content, MEDIA_TYPES[suffix], f'"{sha256(content).hexdigest()[:32]}"')


def read_assets(facts: PageFacts) -> Mapping[str, Asset]:
    """Reads all files that browsers load, and writes the facts into the page."""
    assets = {file.name: _read(file) for file in [*STATIC.iterdir(), *(SWAGGER_UI / name for name in SERVED)]}
    page = assets["index.html"].content
    return {**assets, "index.html": Asset.of(with_facts(page, facts), ".html")}


def with_facts(page: bytes, facts: PageFacts) -> bytes:
    r"""Replaces the empty object of the page's data block.

    Example:
        >>> facts = PageFacts("</script>", metrics=True, keyed=False, openai=True, rerank=True, grpc_port=50051)
        >>> with_facts(b'<script type="application/json">{}</script>', facts)[:60]
        b'<script type="application/json">{"version": "\\u003c/script>"'
    """
    written = json.dumps(asdict(facts)).replace("<", "\\u003c").encode()
    return page.replace(_FACTS, written + b"</script>", 1)


@cache
def _read(file: Path) -> Asset:
    """Reads a file once for all applications of the process."""
    return Asset.of(file.read_bytes(), file.suffix)
