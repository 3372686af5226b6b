"""Structured logs on standard error: one event a line, without the contents of requests.

A library's message or a traceback may quote a client. Characters that terminals obey are escaped: see `_CONTROLS`.

The service's own events go from structlog to the stream without records of the standard library, which would make
the line of each request expensive.
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

# Line ends, escape sequences and changes of direction, escaped as in JSON. They could forge or hide a line.
_CONTROLS: Final = {
    code: f"\\u{code:04x}"
    for codes in (range(0x20), range(0x7F, 0xA0), range(0x200E, 0x2010), range(0x2028, 0x202F), range(0x2066, 0x206A))
    for code in codes
}
# The same for texts with several lines
_CONTROLS_IN_TEXT: Final = {code: escaped for code, escaped in _CONTROLS.items() if chr(code) not in "\t\n"}


def configure_logs(
    level: str, output_format: str, stream: TextIO | BackgroundWriter = sys.stderr
) -> structlog.typing.FilteringBoundLogger:
    """Sets up structlog, and sends the standard library's records through it.

    Args:
        level: Lowest level that is written, as in `log.level`.
        output_format: `json`, `console` or `auto`, as in `log.format`.
        stream: Takes the lines. With a `BackgroundWriter`, a stalled reader does not block the service.

    Returns:
        The logger of the service.
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
    # Libraries log only warnings and errors.
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.getLogger(LOGGER).setLevel(threshold)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", unfailing)),
        cache_logger_on_first_use=False,
    )
    # Bound once: the proxy that get_logger returns would bind again for each line.
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger(LOGGER).bind()
    return log


def _is_no_departed_client(record: logging.LogRecord) -> bool:
    """Returns False for gRPC's error when a client leaves before its response, which is no fault."""
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


class _Unfailing:
    """Stream that ignores write errors: a full disk must not fail a request."""

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
    return line if line.isascii() else line.translate(_CONTROLS)  # orjson escapes those in ASCII


def _without_controls(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escapes control characters in strings; other values are shown by `repr`, which escapes them."""
    texts = {name: value.rstrip().translate(_CONTROLS) for name, value in event.items() if isinstance(value, str)}
    return {**event, **texts}


def _tracebacks_without_locals() -> structlog.typing.Processor:
    """Renders tracebacks without local variables, which may hold the contents of requests."""
    return structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _console(stream: TextIO | BackgroundWriter) -> structlog.typing.Processor:
    """Renders lines for people, likewise without local variables."""
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_traceback)


def _traceback(stream: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    stream.write(text.getvalue().translate(_CONTROLS_IN_TEXT))
