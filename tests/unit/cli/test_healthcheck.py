"""`electra-serve healthcheck` against a server that is ready, is not, or is not there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from electra_serve.cli.healthcheck import healthcheck
from electra_serve.cli.main import main


@contextmanager
def serving(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server that gives every request this status; yields its port and the paths that were requested."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class' name
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class' name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], paths
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (204, 1), (404, 1), (503, 1)])
def test_only_200_is_ready(status: int, code: int) -> None:
    with serving(status) as (port, _):
        assert healthcheck(f"http://127.0.0.1:{port}/readyz", timeout_s=5) == code


def test_the_address_comes_from_the_settings_and_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(200) as (port, paths):
        assert main(["healthcheck", "--rest.host=0.0.0.0", f"--rest.port={port}"]) == 0
    assert paths == ["/readyz"]


def test_a_server_that_is_not_there_or_silent_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/readyz"
        assert healthcheck(url, timeout_s=0.05) == 1
    assert healthcheck(url, timeout_s=5) == 1
    assert url in capsys.readouterr().err
