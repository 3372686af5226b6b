"""One attempt to fetch in a child process, which ends if it stalls, takes too long or fetches too much."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from electra_serve.presets.hubs.cache import home_dir
from electra_serve.presets.hubs.failure import Failure, FailureKind, FetchError, one_line
from electra_serve.presets.hubs.fetch import CLEANUP_S
from electra_serve.presets.hubs.files import bytes_below
from electra_serve.presets.hubs.handle import Handle
from electra_serve.runtime.progress import Progress

COMMAND: Final = (sys.executable, "-m", "electra_serve.presets.hubs.fetch")
POLL_S: Final = 0.1
KILL_S: Final = 5.0  # time in which a killed process must end


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of an attempt."""

    revision: str  # the version or commit that the handle means now
    client: str  # the client library and its version
    # paths in the client's cache by name in the preset; empty if the caller has this revision
    files: Mapping[str, Path]
    listed: bool = True  # False if the files were found offline


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one attempt: seconds without a new byte, and bytes."""

    stall_timeout_s: float
    max_bytes: int


class FetchProcess:
    """Runs `electra_serve.presets.hubs.fetch` with the clients' variables in `environment`, and watches it."""

    def __init__(
        self,
        limits: FetchLimits,
        environment: Mapping[str, str],
        progress: Progress,
        *,
        command: Sequence[str] = COMMAND,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._environment = environment
        self._progress = progress
        self._command = command
        self._now = now

    def run(self, handle: Handle, *, have: str, timeout_s: float, offline: bool = False) -> Fetched:
        """Fetches the files of `handle`, unless it means the revision `have`; `offline`, it finds cached files only.

        Raises:
            FetchError: It failed or exceeded a limit.
        """
        with tempfile.TemporaryDirectory(prefix="electra-serve-") as name:
            report, log = Path(name, "report"), Path(name, "log")
            environment = {**self._environment, **_client_environment(Path(name), self._environment, offline=offline)}
            with (
                log.open("wb") as log_stream,
                report.open("wb") as report_stream,
                self._process((str(handle), have), environment, report_stream, log_stream) as process,
            ):
                self._watch(process, handle, report, timeout_s)
            return _read_result(report, log, listed=not offline)

    @contextmanager
    def _process(
        self, arguments: Sequence[str], environment: Mapping[str, str], report: IO[bytes], log: IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(  # noqa: S603  # our own command; the handle was parsed
            [*self._command, *arguments],
            env=environment,
            stdin=subprocess.PIPE,  # closes with this process
            stdout=report,
            stderr=log,
        )
        try:
            yield process
        finally:
            self._progress.end()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLEANUP_S)
            process.kill()
            process.wait(KILL_S)
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]  # it is a pipe

    def _watch(self, process: subprocess.Popen[bytes], handle: Handle, report: Path, timeout_s: float) -> None:
        deadline = self._now() + timeout_s
        seen, seen_at = -1, self._now()
        while process.poll() is None:
            state, now = _read_report(report), self._now()
            done = bytes_below(Path(str(state["folder"]))) - int(str(state["had_bytes"])) if "folder" in state else 0
            if done != seen:
                seen, seen_at = done, now
                total = state.get("total_bytes")
                if "folder" in state:  # else nothing is fetched yet, or at all
                    size = total if isinstance(total, int) else None
                    self._progress.update("fetching", str(handle), max(done, 0), size)
            if done > self._limits.max_bytes:
                detail = f"a preset must have at most {self._limits.max_bytes} bytes to fetch; it has more"
                raise FetchError(Failure(FailureKind.REJECTED, detail))
            if now >= deadline:
                raise FetchError(Failure(FailureKind.UNAVAILABLE, f"not done within {timeout_s:.0f} s"))
            if now - seen_at >= self._limits.stall_timeout_s:
                stalled = f"no byte arrived for {self._limits.stall_timeout_s:g} s"
                raise FetchError(Failure(FailureKind.UNAVAILABLE, stalled))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)


def _client_environment(folder: Path, environment: Mapping[str, str], *, offline: bool) -> dict[str, str]:
    """Variables that keep the clients quiet and, if `offline`, off the network."""
    return {
        "HOME": str(home_dir(environment) or folder),  # kagglehub cannot be imported without one
        "DISABLE_KAGGLE_CACHE": "true",
        "DISABLE_COLAB_CACHE": "true",
        "KAGGLEHUB_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TQDM_DISABLE": "1",
    }


def _read_result(report: Path, log: Path, *, listed: bool) -> Fetched:
    """Returns the reported result; raises the reported failure, or a crash if there is neither."""
    state = _read_report(report)
    failure, files = state.get("failure"), state.get("files")
    if isinstance(failure, dict):
        raise FetchError(Failure(**{**failure, "kind": FailureKind(failure["kind"])}))
    if not isinstance(files, dict):
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise FetchError(Failure(FailureKind.CRASHED, one_line(f"the client ended: {last}")))
    paths = {name: Path(path) for name, path in files.items()}
    return Fetched(str(state["revision"]), str(state["client"]), paths, listed)


def _read_report(report: Path) -> dict[str, object]:
    """Returns all whole lines so far as one mapping."""
    lines = report.read_text(encoding="utf-8").splitlines(keepends=True)
    return {key: value for line in lines if line.endswith("\n") for key, value in json.loads(line).items()}
