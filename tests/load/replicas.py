"""Replicas with stand-in engines, which can be stopped, killed and started again on the same ports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.stand_in.script import Script
from tests.integration.process import ServiceProcess
from tests.load.proxy import Ports, haproxy
from tests.load.stand_in import stand_in


class Replica:
    """One replica, always on the same ports.

    Args:
        folder: Folder of its output.
        script: Behavior of its engine.
        flags: Flags after `serve`.
        stack: Ends the processes.
    """

    def __init__(self, folder: Path, script: Script, flags: Sequence[str], stack: ExitStack) -> None:
        self.ports = Ports.free()
        self._folder = folder
        self._script = script
        self._flags = flags
        self._stack = stack
        self._starts = 0
        self.process = self.start()

    def start(self) -> ServiceProcess:
        """Starts it and waits until it is ready."""
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir(parents=True)
        at = (self.ports.rest, self.ports.grpc)
        self.process = self._stack.enter_context(stand_in(folder, self._script, *self._flags, at=at))
        return self.process


@contextmanager
def replicas_behind_proxy(
    folder: Path, number: int, script: Script, *flags: str
) -> Iterator[tuple[Ports, Sequence[Replica]]]:
    """Starts `number` replicas and the proxy; yields the proxy's ports and the replicas."""
    with ExitStack() as stack:
        replicas = [Replica(folder / f"replica-{index}", script, flags, stack) for index in range(number)]
        front = stack.enter_context(haproxy(folder, [replica.ports for replica in replicas]))
        yield front, replicas
