"""Runs the kit: `python3 run.py [--device cpu] [--stage NAME …] [--out FOLDER]`, on plain Python with JAX.

Installs the kit's wheels into a folder in front of the machine's own packages, and hands over to
`tools.gpu_kit.runner`. Nothing of the machine is changed. No network is needed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

KIT: Final = Path(__file__).resolve().parent
INSTALL: Final = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check")


def main() -> int:
    """Installs, runs every stage, and removes what it installed."""
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="gpu-kit-") as folder:
        site, project = Path(folder) / "site", Path(folder) / "project"
        wheels = sorted(map(str, (KIT / "wheels").glob("*.whl")))
        command = [sys.executable, "-m", "pip", "install", *INSTALL, "--root-user-action=ignore", f"--target={site}"]
        subprocess.run([*command, *wheels], check=True)
        shutil.copytree(KIT / "project", project)
        paths = [str(site), str(project), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each of many processes would compile every module again
        runner = [sys.executable, "-m", "tools.gpu_kit.runner", f"--started={started}", f"--work={folder}"]
        arguments = [*runner, f"--out={Path.cwd() / 'gpu-kit-results'}", *sys.argv[1:]]
        process = subprocess.Popen(arguments, cwd=project, env=environment)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
