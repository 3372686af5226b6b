"""`electra-serve serve`: serves until a signal arrives. Imports the server only when it runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Final

from electra_serve import __version__
from electra_serve.api.sockets import local_url, reachable
from electra_serve.runtime.memory import use_one_arena
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import Settings

if TYPE_CHECKING:
    from electra_serve.runtime.background_writer import BackgroundWriter
    from electra_serve.runtime.progress import TerminalWriter
    from electra_serve.serving.loader import ModelLoader
    from electra_serve.serving.model_info import ModelInfo

LAST_LINES_S: Final = 1.0  # time for the last lines of each stream to be written before the process ends
TERMINAL_S: Final = 0.1  # time for a terminal to show the log before the addresses

SWITCH_INTERVAL_S: Final = 0.0005
"""Time after which a thread that runs Python hands over the GIL. At the default of 5 ms, the event loop waits up to
that long after each system call while a long text is tokenized."""


def add_serve(parser: argparse.ArgumentParser, load: ModelLoader | None) -> None:
    """Adds the command's flags and the command to `parser`."""
    source = add_flags(parser)

    def run(flags: argparse.Namespace) -> int:
        return serve(read_settings(flags, source, os.environ), load=load)

    parser.set_defaults(run=run, until_signalled=True)


def serve(settings: Settings, *, load: ModelLoader | None = None) -> int:
    """Serves until a signal arrives.

    Args:
        settings: All settings.
        load: Loads a model; default: with the engine that its settings name.

    Returns:
        The exit code of the process.
    """
    # Otherwise gRPC writes lines of its own to standard error, one for each failed handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    use_one_arena(os.environ)
    # Imported here so that the other commands start without the server.
    import uvloop

    from electra_serve.observability.logs import configure_logs
    from electra_serve.runtime.background_writer import BackgroundWriter
    from electra_serve.runtime.daemon_thread import abandoned
    from electra_serve.runtime.file_limit import raise_descriptor_limit
    from electra_serve.runtime.progress import TerminalWriter
    from electra_serve.server.bootstrap import build_process, lower_connection_limits

    terminal = TerminalWriter(sys.stderr) if shows_progress(settings, os.environ) else None
    output, error = BackgroundWriter(sys.stdout), terminal or BackgroundWriter(sys.stderr)
    log = configure_logs(settings.log.level, settings.log.format, error)
    error.notify(lambda lines: log.warning("log lines dropped", lines=lines))
    settings = lower_connection_limits(settings, raise_descriptor_limit(), log)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    async def run() -> int:
        process = build_process(
            settings,
            log,
            on_ready=_announce(settings, error if terminal else None),
            load=load,
            dropped_log_lines=lambda: error.dropped,
            progress=terminal,
        )
        return await process.run()

    # Not only the log: a warning or a library's own line must not block the event loop either.
    with (
        _written_at_the_end(output, error),
        _erased_at_the_end(terminal),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
    ):
        code = uvloop.run(run())
    if code or abandoned():
        # A daemon thread may still run native code: a model was loading, or an engine stalled. Tearing the interpreter
        # down under it can crash, and waiting for it may take forever.
        os._exit(code)
    return code


@contextlib.contextmanager
def _erased_at_the_end(terminal: TerminalWriter | None) -> Iterator[None]:
    """Erases the progress of a stage that failed."""
    try:
        yield
    finally:
        if terminal is not None:
            terminal.end()


@contextlib.contextmanager
def _written_at_the_end(*writers: BackgroundWriter) -> Iterator[None]:
    """Gives the last lines some time to be written, however the context ends."""
    try:
        yield
    finally:
        for writer in writers:
            writer.wait_written(LAST_LINES_S)


def shows_progress(settings: Settings, environment: Mapping[str, str]) -> bool:
    """Returns True if standard error is a terminal that can redraw a line, and the log is for people."""
    return sys.stderr.isatty() and environment.get("TERM") != "dumb" and settings.log.format != "json"


def _announce(
    settings: Settings, terminal: BackgroundWriter | None = None
) -> Callable[[int, int, Sequence[ModelInfo]], None]:
    """Returns a function that prints to standard output, after the lines of `terminal`, which may show it too."""

    def announce(rest_port: int, grpc_port: int, models: Sequence[ModelInfo]) -> None:
        """Prints the addresses and a first request."""
        url = local_url(settings.rest.host, rest_port, tls=bool(settings.security.tls_certificate))
        if terminal is not None:
            terminal.wait_written(TERMINAL_S)
        random = [model.name for model in models if model.weights == "random"]
        lines = [
            f"electra-serve {__version__} is ready: REST on {url}, gRPC on {reachable(settings.grpc.host)}:{grpc_port}"
        ]
        lines += [f"Playground: {url}/  API reference: {url}/docs"] * settings.rest.playground
        lines += [f"The weights of {name} are random: its outputs mean nothing." for name in random]
        body = json.dumps({"model": models[0].name, **_example_input(models[0]), "outputs": ["mean_output"]})
        sent = f"-H 'content-type: application/json' -d {quote(body)}"
        lines += [f"Try: curl -s {_curl_options(settings)}{url}/v1/encode {sent}"]
        sys.stdout.write("\n".join([*lines, ""]))
        sys.stdout.flush()

    return announce


def _curl_options(settings: Settings) -> str:
    """Returns the options that a request needs for TLS and API keys, each followed by a space."""
    security = settings.security
    options = ["--cacert CA_FILE"] * bool(security.tls_certificate)
    options += ["--cert CERT_FILE --key KEY_FILE"] * bool(security.tls_client_ca)
    options += ["-H 'authorization: Bearer YOUR_KEY'"] * bool(security.api_keys_file)
    return "".join(f"{option} " for option in options)


def _example_input(model: ModelInfo) -> dict[str, object]:
    return {"text": "Hello, world!"} if model.text else {"token_ids": [[2, 1, 3]]}
