"""Structured logs on standard error: one event a line, never a request's contents.

Our own events go from structlog to the stream, without the standard library's records in between: a line for each
request is one of the dearer things that a request costs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Final, TextIO, cast

import orjson
import structlog

from service.settings import LogSettings

LOGGER: Final = "electra_serve"


def configure_logs(settings: LogSettings, stream: TextIO = sys.stderr) -> structlog.typing.FilteringBoundLogger:
    """Sets up structlog, and sends the standard library's records through it.

    Args:
        settings: Level and format.
        stream: Where lines go.

    Returns:
        The logger to hand to whoever writes logs.
    """
    shared: Sequence[structlog.typing.Processor] = (
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    last: Sequence[structlog.typing.Processor] = (
        (_tracebacks_without_locals(), structlog.processors.JSONRenderer(_json)) if as_json else (_console(stream),)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(shared),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    # The libraries' own progress is no news; what goes wrong in them is.
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    logging.getLogger(LOGGER).setLevel(level)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(stream))),
        cache_logger_on_first_use=False,
    )
    # Bound once: what get_logger returns would put itself together anew for each line.
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger(LOGGER).bind()
    return log


class _Unfailing:
    """A stream whose failures stay its own: a full disk or a reader that went away must not fail a request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _json(event: object, default: Callable[[object], object]) -> str:
    return orjson.dumps(event, default, orjson.OPT_NON_STR_KEYS).decode()


def _tracebacks_without_locals() -> structlog.typing.Processor:
    """Tracebacks as data. The local variables, which structlog adds if left to itself, would hold callers' bodies."""
    return structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _console(stream: TextIO) -> structlog.typing.Processor:
    """Lines for people, likewise without local variables."""
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
