"""Cross-origin requests: which pages' scripts may call REST and read its responses.

Browsers send a preflight request without a key, so it needs none. Only headers that a client of this API sends are
allowed, and only those that it needs are exposed. Cookies are not allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from electra_serve.api.request_options import PRIORITY_KEY
from electra_serve.api.rest.headers import LENGTH_HEADER, TIMEOUT_HEADER
from electra_serve.api.rest.middleware import REQUEST_ID_HEADER
from electra_serve.api.security.authentication import API_KEY, AUTHORIZATION
from electra_serve.observability.tracing import TRACE_RESPONSE_KEY

METHODS: Final = ("GET", "HEAD", "POST")
ALLOWED_HEADERS: Final = (
    API_KEY,
    AUTHORIZATION,
    PRIORITY_KEY,
    REQUEST_ID_HEADER,
    TIMEOUT_HEADER,
    "content-type",
    LENGTH_HEADER,
    "traceparent",
    "tracestate",
)
EXPOSED_HEADERS: Final = (LENGTH_HEADER, REQUEST_ID_HEADER, "retry-after", TRACE_RESPONSE_KEY)


def add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Allows pages of these origins to call `app`; of none if there are none.

    Add it before the middleware that gives each response its common headers, so that preflights get them too.
    """
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
