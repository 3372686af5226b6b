"""Structured logs on standard error: one event a line, never a request's contents.

What a client writes hardly comes here, and where it does, in a library's message or a traceback, it is told without
characters that a terminal or a reader of lines obeys: see `_CONTROLS`.

Our own events go from structlog to the stream, without the standard library's records in between: a line for each
request is one of the dearer things that a request costs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Final, TextIO, cast

import orjson
import structlog

from electra_serve.runtime.background_writer import BackgroundWriter

LOGGER: Final = "electra_serve"

_CONTROLS: Final = {
    code: f"\\u{code:04x}"
    for codes in (range(0x20), range(0x7F, 0xA0), range(0x200E, 0x2010), range(0x2028, 0x202F), range(0x2066, 0x206A))
    for code in codes
}
"""Line ends, escape sequences and changes of direction, as JSON writes them: they could forge a line, or hide one."""
_CONTROLS_IN_TEXT: Final = {code: escaped for code, escaped in _CONTROLS.items() if chr(code) not in "\t\n"}
"""The same for texts of several lines."""


def configure_logs(
    level: str, output_format: str, stream: TextIO | BackgroundWriter = sys.stderr
) -> structlog.typing.FilteringBoundLogger:
    """Sets up structlog, and sends the standard library's records through it.

    Args:
        level: Least severe level that is written, as in `log.level`.
        output_format: `json`, `console` or `auto`, as in `log.format`.
        stream: Where lines go. A `BackgroundWriter` keeps a stalled reader from blocking those who log.

    Returns:
        The logger to hand to whoever writes logs.
    """
    shared: Sequence[structlog.typing.Processor] = (
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )
    as_json = output_format == "json" or (output_format == "auto" and not stream.isatty())
    last: Sequence[structlog.typing.Processor] = (
        (_tracebacks_without_locals(), structlog.processors.JSONRenderer(_json))
        if as_json
        else (_without_controls, _console(stream))
    )
    unfailing = stream if isinstance(stream, BackgroundWriter) else _Unfailing(stream)
    handler = logging.StreamHandler(unfailing)
    handler.addFilter(_is_no_departed_client)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(shared),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    # The libraries' own progress is no news; what goes wrong in them is.
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.getLogger(LOGGER).setLevel(threshold)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", unfailing)),
        cache_logger_on_first_use=False,
    )
    # Bound once: what get_logger returns would put itself together anew for each line.
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger(LOGGER).bind()
    return log


def _is_no_departed_client(record: logging.LogRecord) -> bool:
    """Returns False for gRPC's error of a response whose client has left: clients may, as often as they like."""
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


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
    line = orjson.dumps(event, default, orjson.OPT_NON_STR_KEYS).decode()
    return line if line.isascii() else line.translate(_CONTROLS)  # of ASCII's own, orjson has escaped those that matter


def _without_controls(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Values of other types are shown as `repr` does, which escapes by itself."""
    texts = {name: value.rstrip().translate(_CONTROLS) for name, value in event.items() if isinstance(value, str)}
    return {**event, **texts}


def _tracebacks_without_locals() -> structlog.typing.Processor:
    """Tracebacks as data. The local variables, which structlog adds if left to itself, would hold callers' bodies."""
    return structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _console(stream: TextIO | BackgroundWriter) -> structlog.typing.Processor:
    """Lines for people, likewise without local variables."""
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_traceback)


def _traceback(stream: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    stream.write(text.getvalue().translate(_CONTROLS_IN_TEXT))
