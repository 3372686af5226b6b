"""Kills a run at each of its steps on disk, continues it, and compares: `python -m tests.unit.bulk.kills`.

A step is a rename, a removal, a new folder or an fsync. A forked child ends by `os._exit` right before its n-th step,
so no handler cleans up. A file under the output's name must then be whole. Prints the number of steps and the faults.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.unit.bulk.support import run, write_table

STEPS = ("fsync", "mkdir", "replace", "rmdir", "unlink")
ROWS = [None if row % 9 == 4 else f"row {row} " + "word " * (row * 5 % 11) for row in range(20)]
FIRST_FAULTS = 5


def main() -> int:
    """Runs in the folder of the first argument, for the output of the second."""
    os.chdir(sys.argv[1])
    output = Path(sys.argv[2])
    source = write_table(Path("rows.jsonl"), {"text": ROWS})
    in_child(partial(run, source, Path("reference") / output), mkdir="reference")
    expected = state(Path("reference"))
    faults: list[str] = []
    number = 0
    while True:
        folder = Path(f"killed-{number}")
        killed = in_child(partial(killed_run, source, folder / output, number), mkdir=str(folder))
        if (folder / output).exists() and digest(folder / output) != digest(Path("reference") / output):
            faults.append(f"{number}: a partial output")
        if in_child(partial(run, source, folder / output)) or state(folder) != expected:
            faults.append(f"{number}: {sorted(state(folder))} differ")
        if not killed or len(faults) >= FIRST_FAULTS:
            break
        number += 1
    sys.stdout.write(json.dumps({"steps": number, "faults": faults}) + "\n")
    return 0


def in_child(act: Callable[[], Any], mkdir: str | None = None) -> int:
    """Runs `act` in a fork, and returns its exit code."""
    if mkdir is not None:
        Path(mkdir).mkdir()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        act()
        code = 0
    except BaseException:  # noqa: BLE001  # printed, since pytest does not see this process
        traceback.print_exc()
    os._exit(code)


def killed_run(source: Path, output: Path, at: int) -> None:
    """Runs until right before a step."""
    left = at

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def take(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return step(*arguments, **named)

        return take

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    run(source, output)


def state(folder: Path) -> dict[str, str]:
    """Digests of the output and of the files next to it; timings differ between runs of other machines."""
    return {path.name: digest(path) for path in folder.iterdir()}


def digest(path: Path) -> str:
    """Digest of a file, or of all files of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
