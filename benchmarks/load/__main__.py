"""A lean load generator: `python -m benchmarks.load rest|grpc --port …` prints one line of JSON.

Requests are JSON bodies of `POST /v1/encode`. REST sends them as they are, to any `--path`; gRPC sends the
`EncodeRequest` of their `token_ids` and `outputs`. Run it on another core than the service: if `generator_cpu` is near
1, the generator was the limit and not the service.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load.closed_loop import LoadPlan, payloads_of, run_load, uniform_body
from benchmarks.load.http_connection import ENCODE_PATH


def main(argv: Sequence[str] | None = None) -> None:
    """Loads a service and prints the figures."""
    flags = _parser().parse_args(argv)
    plan = LoadPlan(
        transport=flags.transport,
        host=flags.host,
        port=flags.port,
        clients=flags.clients,
        connections=min(flags.connections, flags.clients),
        warm_up_s=flags.warm_up_s,
        seconds=flags.seconds,
        server_pid=flags.server_pid,
    )
    figures = run_load(plan, payloads_of(_bodies(flags), flags.transport, path=flags.path))
    sys.stdout.write(json.dumps(figures) + "\n")


def _bodies(flags: argparse.Namespace) -> list[bytes]:
    if flags.bodies is not None:
        return [line for line in Path(flags.bodies).read_bytes().splitlines() if line]
    return [
        uniform_body(flags.rows, flags.length, outputs=flags.outputs.split(","), encoding_format=flags.encoding_format)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=("rest", "grpc"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default=ENCODE_PATH, help="path of REST requests (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--connections", type=int, default=8, help="connections of gRPC (default: %(default)s)")
    parser.add_argument("--warm-up-s", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--server-pid", type=int, help="service process whose CPU time per request is reported")
    parser.add_argument("--bodies", help="file of JSON bodies, one per line, instead of --rows and --length")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--outputs", default="pooled_output", help="comma-separated (default: %(default)s)")
    parser.add_argument("--encoding-format", default="float", choices=("float", "base64"))
    return parser


if __name__ == "__main__":
    main()
