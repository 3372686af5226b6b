"""One thread for one engine, that can be seen to have ended.

The standard library's executor takes work for a thread that is gone and says nothing, and waits at exit for one that
hangs. This one can be asked, and nobody waits for it unless told to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class EngineThread:
    """Runs what it is given, in order, until it is closed.

    Args:
        name: The thread's.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it runs what it is given; False too once it was closed and is done."""
        return self._thread.is_alive()

    def submit(self, work: Work) -> None:
        """Runs `work`, which must not raise, after what was submitted before."""
        self._work.put(work)

    def close(self) -> None:
        """Ends the thread after what was submitted."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
