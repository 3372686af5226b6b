"""The fetching process: `python -m electra_serve.presets.hubs.fetch HANDLE STAGING [HAVE]`.

It tells its parent what it does in lines of JSON on standard output:

    {"revision": "2", "client": "kagglehub 1.0.2", "total_bytes": null}    once the hub has told
    {"files": ["config.json", …]}                                          all are in STAGING/files
    {"failure": {"kind": "forbidden", "detail": "HTTP 403", …}}            or instead

With HAVE, a revision that the parent has already, it fetches nothing where the hub has that one too. Whatever the
clients write goes to standard error. It ends when its standard input does: with its parent.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from electra_serve.presets.hubs.client import HubClient
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError
from electra_serve.presets.hubs.files import STAGED, fetch_files
from electra_serve.presets.hubs.handle import Handle, Hub, parse_handle

EXIT_ORPHANED: Final = 3

Notify = Callable[[Mapping[str, object]], None]


def main(argv: Sequence[str]) -> int:
    """Runs one attempt.

    Args:
        argv: The handle, the staging folder, and the revision that is there already or an empty string.

    Returns:
        0 where the files are there, 1 where the parent was told why not.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    report = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # both clients print to standard output

    def notify(event: Mapping[str, object]) -> None:
        report.write(json.dumps(event) + "\n")

    handle, staging, have = parse_handle(argv[0]), Path(argv[1]), argv[2]
    if handle is None:
        raise SystemExit(f"must be a handle; received {argv[0]}")
    try:
        fetch(make_client(handle, staging), staging, have, notify)
    except FetchError as error:
        notify({"failure": asdict(error.failure)})
        return 1
    return 0


def fetch(client: HubClient, staging: Path, have: str, notify: Notify) -> None:
    """Fetches everything into `staging/files`.

    Raises:
        FetchError: Something cannot be had.
    """
    revision = client.resolve()
    notify({"revision": revision, "client": client.version, "total_bytes": client.total_bytes})
    if revision == have:
        notify({"files": []})
        return
    fetched = fetch_files(client.download)
    shutil.rmtree(staging / STAGED, ignore_errors=True)
    for name, path in fetched.items():
        _place(path, staging / STAGED / name, staging)
    notify({"files": sorted(fetched)})


def make_client(handle: Handle, staging: Path) -> HubClient:
    """The client of the handle's hub, imported now.

    Raises:
        FetchError: It is not installed.
    """
    try:
        return _CLIENTS[handle.hub](handle, staging)
    except ModuleNotFoundError as error:
        detail = f"{error.name} is not installed; `pip install 'electra-serve[server]'` brings it"
        raise FetchError(Failure(FailureKind.REJECTED, detail)) from error


def _kaggle(handle: Handle, staging: Path) -> HubClient:
    from electra_serve.presets.hubs.kaggle import KaggleClient

    return KaggleClient(handle, staging)


def _hugging_face(handle: Handle, staging: Path) -> HubClient:
    from electra_serve.presets.hubs.huggingface import HuggingFaceClient

    return HuggingFaceClient(handle, staging)


_CLIENTS: Final[Mapping[Hub, Callable[[Handle, Path], HubClient]]] = {"kaggle": _kaggle, "hf": _hugging_face}


def _place(path: Path, target: Path, staging: Path) -> None:
    """Moves what was fetched into `staging`; copies what a client has elsewhere, such as Kaggle's notebooks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.resolve().is_relative_to(staging.resolve()):
        path.resolve().replace(target)
    else:
        shutil.copyfile(path, target)


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a daemon thread would hold at exit
        pass
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
