"""Work of both transports for each request: its id, count, log line and span, and unexpected exceptions.

Every request passes through `RequestObserver.request` once, so the code of a transport only converts.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from opentelemetry.trace import Span, Tracer

from electra_serve.errors import Cancelled, InternalError, ServiceError
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.tracing import NO_CARRIER, Carrier, Outcome, end_request_span, start_request_span
from electra_serve.runtime.frames import clear_frames

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def choose_request_id(candidate: str | None) -> str:
    r"""Returns the client's request id if it is short and plain, else a new one.

    Example:
        >>> choose_request_id("order-7")
        'order-7'
        >>> len(choose_request_id("a\nforged log line"))
        32
    """
    if candidate is not None and REQUEST_ID_PATTERN.fullmatch(candidate):
        return candidate
    return secrets.token_hex(16)


@dataclass(slots=True)
class RequestRecord:
    """Data for a request's log line, metrics and span, which the transport fills in."""

    request_id: str
    model: str = ""
    sequences: int = 0
    tokens: int = 0
    span: Span | None = None


class RequestObserver:
    """Counts, logs and traces the requests of one transport; there is no tracer without tracing."""

    def __init__(
        self,
        transport: str,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
        *,
        log_requests: bool = True,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._transport = transport
        self._metrics = metrics
        self._in_flight = metrics.in_flight.labels(transport)
        self._log = log
        self._log_requests = log_requests

    @contextmanager
    def request(self, method: str, request_id: str, carrier: Carrier = NO_CARRIER) -> Iterator[RequestRecord]:
        """Observes one request from its arrival to its response; the carrier may name the client's span.

        Raises:
            ServiceError: Raised inside. Any other exception becomes an `InternalError` that has only the request
                id; the log has the traceback.
        """
        record = RequestRecord(request_id)
        if self._tracer is not None:
            record.span = start_request_span(self._tracer, self._transport, method, carrier)
        started = time.perf_counter()
        self._in_flight.inc()
        failure: type[ServiceError] | None = None
        try:
            yield record
        except ServiceError as error:
            failure = type(error)
            clear_frames(error)  # keeps nothing of a rejected request
            raise
        except asyncio.CancelledError:
            failure = Cancelled
            raise
        except Exception as error:
            failure = InternalError
            self._log.exception("request failed unexpectedly", request_id=record.request_id)
            raise InternalError(
                f"internal error; the log has the traceback under request id {record.request_id}"
            ) from error
        finally:
            self._leave()
            self._finish(method, record, failure, time.perf_counter() - started)

    def _leave(self) -> None:
        """Counts the request as in flight until its task ends; by then its response is sent."""
        task = _current_task()
        if task is None:
            self._in_flight.dec()
        else:
            task.add_done_callback(lambda _: self._in_flight.dec())

    def _finish(self, method: str, record: RequestRecord, failure: type[ServiceError] | None, seconds: float) -> None:
        code, internal = ("ok", False) if failure is None else (failure.code, failure.internal)
        self._metrics.observe_request(transport=self._transport, model=record.model, code=code, seconds=seconds)
        if record.span is not None:
            outcome = Outcome(record.model, code, internal, record.sequences, record.tokens)
            end_request_span(record.span, outcome)
        if not self._log_requests:
            return
        self._log.info(
            "request",
            transport=self._transport,
            method=method,
            request_id=record.request_id,
            model=record.model,
            code=code,
            sequences=record.sequences,
            tokens=record.tokens,
            ms=round(seconds * 1e3, 3),
        )


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop
        return None
