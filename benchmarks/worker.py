"""A process that builds a subject, replies to questions about it, and is stopped in between.

Backends in one process compete for threads, and Keras has one backend per process, so each encoder has its own process.
It is stopped (SIGSTOP) between questions, so that spinning threads do not disturb another measurement.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, Protocol, Self, TypeVar

STOP_S: Final = 10.0
Subject = TypeVar("Subject")
Asked = TypeVar("Asked", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
Found = TypeVar("Found")


class Unavailable(Exception):
    """A subject cannot be built here, or failed; the message has the reason."""


class Question(Protocol[Asked, Answer]):
    """A question about a subject; it and its reply must be picklable."""

    def answer(self, subject: Asked, /) -> Answer:
        """Computes the reply in the worker's process."""


class Worker(Generic[Subject]):
    """The process, as its parent sees it.

    Args:
        name: The process' name.
        build: Makes the subject; a module's own function, or a `partial` of one.

    Raises:
        Unavailable: Building raised.
    """

    def __init__(self, name: str, build: Callable[[], Subject]) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(build, theirs), daemon=True, name=name)
        self._paused = False
        self._process.start()
        theirs.close()
        try:
            self._receive()
        except Unavailable:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Question[Subject, Found]) -> Found:
        """Sends a question and returns the reply.

        Raises:
            Unavailable: The question raised.
        """
        self._pause(paused=False)
        with contextlib.suppress(ConnectionError):  # if the process has ended, receiving raises
            self._connection.send(question)
        answer: Found = self._receive()
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._pause(paused=False)
        self._connection.close()
        self._process.join(STOP_S)
        self._process.kill()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(STOP_S)
            raise Unavailable(f"{self._process.name} ended with exit code {self._process.exitcode}") from None
        self._pause(paused=True)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    def _pause(self, *, paused: bool) -> None:
        if self._process.pid is not None and self._process.is_alive() and paused != self._paused:
            os.kill(self._process.pid, signal.SIGSTOP if paused else signal.SIGCONT)
            self._paused = paused


def _work(build: Callable[[], Any], connection: Connection) -> None:
    subject = _attempt(build)
    connection.send(subject if isinstance(subject, Unavailable) else None)
    while not isinstance(subject, Unavailable):
        try:
            question = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(partial(question.answer, subject)))


def _attempt(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except Exception as error:  # noqa: BLE001  # a missing or unfit library raises anything; reports show it
        return Unavailable(f"{type(error).__name__}: {' '.join(str(error).split()).partition(' [type=')[0]:.200}")
