"""Command line: `electra-serve serve | encode | presets | compile | healthcheck`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from electra_serve import __version__
from electra_serve.cli.compile import add_compile
from electra_serve.cli.encode import add_encode
from electra_serve.cli.healthcheck import add_healthcheck
from electra_serve.cli.presets import add_presets
from electra_serve.cli.serve import add_serve
from electra_serve.errors import StartupError

if TYPE_CHECKING:
    from electra_serve.serving.loader import ModelLoader

_AS_ASKED: Final = 0
_INTERRUPTED: Final = 128  # exit code of an interrupted command, plus the signal's number, as in shells


def main(argv: Sequence[str] | None = None, *, load: ModelLoader | None = None) -> int:
    """Runs one command and returns the exit code.

    Args:
        argv: Arguments after the program's name; default: those of the process.
        load: Replaces the loader of models of `serve` and `encode`.
    """
    _exit_on_signal(_AS_ASKED)
    parser = argparse.ArgumentParser("electra-serve", description="Serves ELECTRA encoders over REST and gRPC.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(until_signalled=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serve(commands.add_parser("serve", help="load the models and serve requests"), load)
    add_encode(commands.add_parser("encode", help="encode files of texts into vectors or labels"), load)
    add_presets(commands.add_parser("presets", help="list, fetch and verify presets"))
    add_compile(commands.add_parser("compile", help="compile a preset for the fastest start on a CPU"))
    add_healthcheck(commands.add_parser("healthcheck", help="exit 0 if a service on this machine is ready"))
    flags = parser.parse_args(argv)
    if not flags.until_signalled:
        _exit_on_signal(_INTERRUPTED)
    try:
        code: int = flags.run(flags)
    except StartupError as error:
        sys.stderr.write(f"electra-serve: {error}\n")
        return error.exit_code
    return code


def _exit_on_signal(code: int) -> None:
    """Ends the process at once on SIGTERM or SIGINT, until `serve` sets its own handlers.

    Process 1 of a container would otherwise ignore a SIGTERM during the imports.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(code + number if code else code))
