"""The child process that fetches: `python -m electra_serve.presets.hubs.fetch HANDLE [HAVE]`.

It reports lines of JSON on standard output; the clients write to standard error:

    {"client": "kagglehub 1.0.2", "folder": "/…", "had_bytes": 0}      at the start
    {"revision": "2", "total_bytes": null}                             once the hub has returned it
    {"files": {"config.json": "/…", …}}                                verified files in the client's cache
    {"failure": {"kind": "forbidden", "detail": "HTTP 403", …}}        or instead

If the revision is HAVE, it fetches no files. It ends when its standard input does: with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from electra_serve.presets.hubs.client import HubClient
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError
from electra_serve.presets.hubs.files import bytes_below, fetch_files
from electra_serve.presets.hubs.handle import Handle, parse_handle

EXIT_ENDED: Final = 3
CLEANUP_S: Final = 1.0  # time in which an ended process may remove partial files

Notify = Callable[[Mapping[str, object]], None]


def main(argv: Sequence[str]) -> int:
    """Runs one attempt."""
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    report = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # both clients print to standard output

    def notify(event: Mapping[str, object]) -> None:
        report.write(json.dumps(event) + "\n")

    handle, have = parse_handle(argv[0]), argv[1]
    if handle is None:
        raise SystemExit(f"HANDLE must be a handle on a hub; got {argv[0]!r}")
    try:
        fetch(make_client(handle), have, notify)
    except FetchError as error:
        notify({"failure": asdict(error.failure)})
        return 1
    return 0


def fetch(client: HubClient, have: str, notify: Notify) -> None:
    """Fetches the files of a preset and reports each step; raises `FetchError`."""
    notify({"client": client.version, "folder": str(client.folder), "had_bytes": bytes_below(client.folder)})
    revision = client.resolve()
    notify({"revision": revision, "total_bytes": client.total_bytes})
    files = {} if revision == have else fetch_files(client.download)
    notify({"files": {name: str(path) for name, path in files.items()}})


def make_client(handle: Handle) -> HubClient:
    """Imports and builds the client of the handle's hub; raises `FetchError`."""
    try:
        if handle.hub == "kaggle":
            from electra_serve.presets.hubs.kaggle import KaggleClient

            return KaggleClient(handle)
        from electra_serve.presets.hubs.huggingface import HuggingFaceClient

        return HuggingFaceClient(handle)
    except ModuleNotFoundError as error:
        detail = f"{error.name} is not installed; `pip install 'electra-serve[server]'` installs it"
        raise FetchError(Failure(FailureKind.REJECTED, detail)) from error


def _end(*_: object) -> None:
    raise SystemExit(EXIT_ENDED)  # unwinds, so that huggingface_hub removes its partial file


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a daemon thread would hold at exit
        pass
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(CLEANUP_S)
    os._exit(EXIT_ENDED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
