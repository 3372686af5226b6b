"""Logs: one event per line, and a failing stream affects nothing else."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from electra_serve.observability.logs import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The logging of the tests themselves, as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


class BrokenPipe(io.StringIO):
    """Standard error after its reader has ended."""

    def write(self, _: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_an_event_is_a_line_of_json() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream).info("request", model="m", ms=1.5)
    [line] = stream.getvalue().splitlines()
    assert {"event": "request", "model": "m", "ms": 1.5, "level": "info"}.items() <= json.loads(line).items()


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    log = configure_logs("warning", "json", stream)
    log.info("request")
    log.warning("draining")
    assert stream.getvalue().count("\n") == 1


def fail(text: str) -> None:
    raise ValueError(f"a reason of {len(text)}")


def test_a_traceback_is_logged_without_local_variables() -> None:
    stream = io.StringIO()
    log = configure_logs("info", "json", stream)
    try:
        fail("a caller's words")
    except ValueError:
        log.exception("failed")
    assert "a reason of 16" in stream.getvalue()
    assert "a caller's words" not in json.loads(stream.getvalue())["exception"][0]["exc_value"]


def test_the_libraries_warnings_come_in_the_same_form() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    logging.getLogger("some.library").warning("careful")
    assert json.loads(stream.getvalue())["event"] == "careful"


def test_a_client_that_left_is_no_error_of_grpc() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    log = logging.getLogger("grpc._cython.cygrpc")
    log.error("ExecuteBatchError raised in core by servicer method [%s]", "/electra.v1.EncoderService/Encode")
    log.error("Unexpected [%s] raised by servicer method", "KeyError")
    [line] = stream.getvalue().splitlines()
    assert "KeyError" in line


def test_for_people_it_is_plain() -> None:
    stream = io.StringIO()
    configure_logs("info", "console", stream).info("ready", rest_port=8080)
    assert "ready" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def fail_with(text: str) -> None:
    raise ValueError(text)


EVIL = "a\x1b[2Jb\r\nforged: line\x9b31m\u202e\u2028c\x7f\x00"
OBEYED = set("\x1b\r\n\x9b\u202e\u2028\x7f\x00")


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_client_wrote_forges_no_line_and_no_escape_sequence(form: Literal["json", "console"]) -> None:
    stream = io.StringIO()
    log = configure_logs("info", form, stream)
    log.info("request", request_id=EVIL, inside={"value": EVIL}, items=[EVIL])
    log.info(EVIL)
    logging.getLogger("uvicorn.error").warning("odd path %s", EVIL)
    lines = stream.getvalue().split("\n")
    assert (len(lines), lines[-1]) == (4, "")
    allowed = {"\x7f"} if form == "json" else set()  # it deletes nothing that is there already
    assert OBEYED & set("".join(lines)) <= allowed


@pytest.mark.parametrize("form", ["json", "console"])
def test_nor_does_it_in_a_traceback(form: Literal["json", "console"]) -> None:
    stream = io.StringIO()
    log = configure_logs("info", form, stream)
    try:
        fail_with(EVIL)
    except ValueError:
        log.exception("failed")
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    text = stream.getvalue()
    assert "ValueError" in text
    assert OBEYED & set(text) <= ({"\n", "\x7f"} if form == "json" else {"\n"})
    if form == "json":
        assert text.count("\n") == 2


@pytest.mark.parametrize("closed", [False, True])
def test_a_failing_stream_fails_no_caller(closed: bool) -> None:
    stream = io.StringIO() if closed else BrokenPipe()
    log = configure_logs("info", "json", stream)
    if closed:
        stream.close()
    log.info("request")
