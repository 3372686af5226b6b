"""`python -m tools.screenshots`: takes the pictures of docs/images from a service of its own, by headless Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.browser import Browser, browser, wait_for

FOLDER: Final = Path("docs/images")
MAX_BYTES: Final = 150_000
"""Of each picture."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the page."""

    name: str
    scheme: str
    width: int
    height: int
    scale: float = 1
    mobile: bool = False


PICTURES: Final = (
    Picture("playground-light.png", "light", 1180, 590),
    Picture("playground-dark.png", "dark", 1180, 590),
    Picture("playground-phone.png", "light", 360, 700, scale=1.5, mobile=True),
)


def main() -> None:
    """Serves the built-in preset and writes the pictures."""
    FOLDER.mkdir(exist_ok=True)
    with service() as url, browser() as chromium:
        for picture in PICTURES:
            take(chromium, url, picture)


def take(chromium: Browser, url: str, picture: Picture) -> None:
    """Writes one picture of the first view, with its result."""
    path = FOLDER / picture.name
    with chromium.page() as page:
        page.resize(picture.width, picture.height, scale=picture.scale, mobile=picture.mobile)
        page.prefer(picture.scheme)
        page.open(url)
        page.wait("document.querySelector('.heat') !== null")
        page.run("document.querySelector('.result').replaceChildren()")
        page.click("button.primary")  # the first result includes the warm-up of the connection
        page.wait("document.querySelector('.heat') !== null && document.querySelector('[aria-busy=false]') !== null")
        page.run("new Promise((resolve) => setTimeout(resolve, 500))")  # until the result has faded in
        if picture.mobile:
            page.run("document.querySelector('button.primary').scrollIntoView()")
        page.screenshot(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{path} must have at most {MAX_BYTES} bytes; it has {size}")
    print(f"{path}: {size} bytes")


@contextlib.contextmanager
def service() -> Iterator[str]:
    """Serves the built-in preset on a free port, and yields its address."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [
            sys.executable,
            "-m",
            "electra_serve",
            "serve",
            "--rest.port=0",
            "--grpc.port=0",
            "--log.format=json",
        ]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream, env=_environment())  # noqa: S603
        try:
            yield str(wait_for(lambda: _address(process, log), "start of the service"))
        finally:
            process.terminate()
            process.wait()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ELECTRA_")}


def _address(process: subprocess.Popen[bytes], log: Path) -> str | None:
    """Returns the address of the page once the service is ready."""
    if process.poll() is not None:
        sys.exit(log.read_text())
    events = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    addresses = [str(event["playground"]) for event in events if event["event"] == "ready"]
    return addresses[0] if addresses and urllib.request.urlopen(addresses[0]).status == 200 else None  # noqa: S310


if __name__ == "__main__":
    main()
