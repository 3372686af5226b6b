"""The command line: `electra-serve serve | presets | compile | healthcheck`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import sys
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from electra_serve import __version__
from electra_serve.api.sockets import reachable
from electra_serve.cli.compile import add_compile
from electra_serve.cli.presets import add_presets
from electra_serve.errors import StartupError
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import Settings

if TYPE_CHECKING:
    from electra_serve.engine.factory import LoadedModel
    from electra_serve.serving.model_info import ModelInfo
    from electra_serve.settings.schema import BatchingSettings, ModelSettings

    Loader = Callable[[ModelSettings, BatchingSettings], LoadedModel]


def main(argv: Sequence[str] | None = None, *, load: Loader | None = None) -> int:
    """Runs one command.

    Args:
        argv: What follows the program's name; default: the process' own.
        load: How `serve` loads a model; default: with the engine that its settings name.

    Returns:
        The process' exit code.
    """
    _exit_on_signal(_AS_ASKED)
    parser = argparse.ArgumentParser("electra-serve", description="Serves ELECTRA encoders over REST and gRPC.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(until_signalled=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="load the models and answer requests"), load)
    add_presets(commands.add_parser("presets", help="list, fetch and verify presets"))
    add_compile(commands.add_parser("compile", help="make a preset ready for the fastest start on a CPU, or for int8"))
    _add_healthcheck(commands.add_parser("healthcheck", help="exit 0 if a service on this machine is ready"))
    flags = parser.parse_args(argv)
    if not flags.until_signalled:
        _exit_on_signal(_INTERRUPTED)
    try:
        code: int = flags.run(flags)
    except StartupError as error:
        sys.stderr.write(f"electra-serve: {error}\n")
        return 1
    return code


_AS_ASKED: Final = 0
_INTERRUPTED: Final = 128
"""To which the signal's number is added, as shells do: what was begun was not finished."""


def _exit_on_signal(code: int) -> None:
    """Ends the process at once on SIGTERM or SIGINT, until `serve` has handlers of its own.

    As process 1 of a container it would otherwise not notice a SIGTERM that comes while imports run.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(code + number if code else code))


def _add_serve(parser: argparse.ArgumentParser, load: Loader | None) -> None:
    source = add_flags(parser)

    def run(flags: argparse.Namespace) -> int:
        return serve(read_settings(flags, source, os.environ), load=load)

    parser.set_defaults(run=run, until_signalled=True)


def serve(settings: Settings, *, load: Loader | None = None) -> int:
    """Serves until a signal comes.

    Args:
        settings: Every knob.
        load: As of `main`.

    Returns:
        The process' exit code.
    """
    # Else gRPC writes lines of its own to standard error, one for each handshake that fails.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Imported here: the other commands need no server, and should not wait for one to be imported.
    import uvloop

    from electra_serve.observability.logs import configure_logs
    from electra_serve.runtime.daemon_thread import abandoned
    from electra_serve.runtime.file_limit import OTHER_DESCRIPTORS, raise_descriptor_limit
    from electra_serve.server.bootstrap import build_process

    log = configure_logs(settings.log.level, settings.log.format)
    descriptors = raise_descriptor_limit()
    if descriptors < settings.rest.max_connections + OTHER_DESCRIPTORS:
        log.warning("too few file descriptors for rest.max_connections", descriptors=descriptors)

    async def run() -> int:
        return await build_process(settings, log, on_ready=_announce(settings), load=load).run()

    code = uvloop.run(run())
    if code or abandoned():
        # A model was loading when the signal came, or an engine was left behind. Native code runs on that thread:
        # tearing the interpreter down under it can crash, and waiting for it can take for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _announce(settings: Settings) -> Callable[[int, int, Sequence[ModelInfo]], None]:
    def announce(rest_port: int, grpc_port: int, models: Sequence[ModelInfo]) -> None:
        """Tells a person where to send the first request."""
        url = f"{_scheme(settings)}://{reachable(settings.rest.host)}:{rest_port}"
        random = [model.name for model in models if model.weights == "random"]
        lines = [
            f"electra-serve {__version__} is ready: REST on {url}, gRPC on {reachable(settings.grpc.host)}:{grpc_port}"
        ]
        lines += [f"The weights of {name} are random: its outputs mean nothing." for name in random]
        body = json.dumps({"model": models[0].name, **_example_input(models[0]), "outputs": ["mean_output"]})
        lines += [
            f"Try: curl -s {_curl_options(settings)}{url}/v1/encode -H 'content-type: application/json' -d '{body}'"
        ]
        sys.stdout.write("\n".join([*lines, ""]))
        sys.stdout.flush()

    return announce


def _curl_options(settings: Settings) -> str:
    """What a first request needs besides its body."""
    security = settings.security
    options = ["--cacert CA_FILE"] * bool(security.tls_certificate)
    options += ["--cert CERT_FILE --key KEY_FILE"] * bool(security.tls_client_ca)
    options += ["-H 'authorization: Bearer YOUR_KEY'"] * bool(security.api_keys_file)
    return "".join(f"{option} " for option in options)


def _example_input(model: ModelInfo) -> dict[str, object]:
    return {"text": "Hello, world!"} if model.text else {"token_ids": [[2, 1, 3]]}


def _add_healthcheck(parser: argparse.ArgumentParser) -> None:
    source = add_flags(parser)
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds to wait (default: %(default)s)")

    def run(flags: argparse.Namespace) -> int:
        settings = read_settings(flags, source, os.environ)
        url = f"{_scheme(settings)}://{reachable(settings.rest.host)}:{settings.rest.port}/readyz"
        return healthcheck(url, flags.timeout)

    parser.set_defaults(run=run)


def _scheme(settings: Settings) -> str:
    return "https" if settings.security.tls_certificate else "http"


def healthcheck(url: str, timeout_s: float) -> int:
    """Asks a running service, for containers whose image has no curl.

    Over TLS, without a look at its certificate: that is made out to a name, and this asks an address of this machine.

    Returns:
        0 if it is ready, else 1.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    directly = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with directly.open(url, timeout=timeout_s) as answer:
            return 0 if answer.status == HTTPStatus.OK else 1
    except OSError:  # refused, timed out, or answered with an error
        return 1
