"""The HTTP server: uvicorn's, under signals and limits of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from service.api.rest.protocol import bounded_protocol
from service.settings import RestSettings


class HttpServer(uvicorn.Server):
    """Serves one application.

    Args:
        app: What answers.
        settings: Limits; where to listen is the socket's business.
    """

    def __init__(self, app: FastAPI, settings: RestSettings) -> None:
        super().__init__(_config(app, settings))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none: the process has its own handlers."""
        yield


def _config(app: FastAPI, settings: RestSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a caller could name itself another client, and take that one's turns
        timeout_keep_alive=75,  # longer than the 60 s that proxies keep idle connections for
    )
