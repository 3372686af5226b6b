"""Pins the images that are built on and run: writes their digests after their tags, or says which have none.

    python -m tools.image_digests [--check]

A tag is what a person reads and a digest is what is fetched: `python:3.11-slim-trixie@sha256:…`. The images' registries
are asked for the digests by `docker buildx imagetools`, so that a machine with Docker and a way there is needed. Run
again, it moves the pins to what the tags mean by then, in a commit that can be looked at.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FILES: Final = (ROOT / "Dockerfile", ROOT / "docker-compose.yml")
REFERENCE: Final = re.compile(
    r"(?P<head>^(?:FROM |[ ]+image: ))(?P<tagged>(?!electra-serve)[^\s@:]+:[^\s@:]+)"
    r"(?P<pin>@sha256:[0-9a-f]{64})?(?=\s)",
    re.MULTILINE,
)
"""`FROM` another's image in the Dockerfile and `image:` in Compose, but for the image that is built here."""
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def pinned(text: str, resolve: Callable[[str], str]) -> str:
    r"""`text` with the digest that `resolve` gives for each image after its tag.

    Raises:
        ValueError: What `resolve` gives is no digest.

    Example:
        >>> pinned("FROM python:3 AS base\n", lambda tagged: "sha256:" + "0" * 64)[:24]
        'FROM python:3@sha256:000'
    """

    def pin(match: re.Match[str]) -> str:
        digest = resolve(match["tagged"])
        if not DIGEST.fullmatch(digest):
            raise ValueError(
                f"{match['tagged']}: a digest is sha256: and 64 hexadecimal digits; received {digest!r:.80}"
            )
        return f"{match['head']}{match['tagged']}@{digest}"

    return REFERENCE.sub(pin, text)


def unpinned(text: str) -> list[str]:
    r"""The images without a digest.

    Example:
        >>> unpinned("FROM python:3 AS base\nFROM base AS wheel\n    image: electra-serve:local\n")
        ['python:3']
    """
    return [match["tagged"] for match in REFERENCE.finditer(text) if not match["pin"]]


def ask_registry(tagged: str) -> str:
    """The digest of an image's index, that is, of all its platforms.

    Raises:
        subprocess.CalledProcessError: There is no such image, or no way to its registry.
    """
    command = ["docker", "buildx", "imagetools", "inspect", tagged, "--format", "{{.Manifest.Digest}}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()  # noqa: S603


def main() -> int:
    """Writes the digests, or with `--check` prints what has none and exits with 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if an image has no digest")
    if parser.parse_args().check:
        missing = [image for file in FILES for image in unpinned(file.read_text("utf-8"))]
        for image in missing:
            sys.stderr.write(f"{image} has no digest: make image-digests\n")
        return bool(missing)
    for file in FILES:
        file.write_text(pinned(file.read_text("utf-8"), ask_registry), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
