"""The service with an engine that computes nothing: `python -m benchmarks.null_service`.

It differs from `electra-serve serve` only in the loader of models. Its flags stay as they are, so that the same command
starts the service of an older checkout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import uvloop

from benchmarks.stand_in.script import Script
from benchmarks.stand_in.service import bare_preset, stand_in_model
from electra_serve.engine.factory import LoadedModel
from electra_serve.observability.logs import configure_logs
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.tokenizers.loader import NO_FILES
from electra_serve.runtime.background_writer import BackgroundWriter
from electra_serve.server.bootstrap import build_process
from electra_serve.settings.schema import (
    BatchingSettings,
    GrpcSettings,
    LogSettings,
    ModelSettings,
    RestSettings,
    Settings,
)

NAME: Final = "null"
HIDDEN_DIM: Final = 256
CONFIG: Final = BackboneConfig(
    vocab_size=30522,
    num_layers=1,
    num_heads=4,
    hidden_dim=HIDDEN_DIM,
    embedding_dim=HIDDEN_DIM,
    intermediate_dim=4 * HIDDEN_DIM,
    max_sequence_length=512,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal comes."""
    flags = _parser().parse_args(argv)
    settings = Settings(
        models=(ModelSettings(preset=NAME),),
        rest=RestSettings(port=flags.rest_port),
        grpc=GrpcSettings(port=flags.grpc_port),
        log=LogSettings(format="json", requests=flags.log_requests),
    )
    script = null_script(flags.seconds_per_batch)
    log = configure_logs(settings.log.level, settings.log.format, BackgroundWriter(sys.stderr))

    def load(_: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        return stand_in_model(script, bare_preset(NAME, CONFIG), NO_FILES, batching)

    async def run() -> int:
        return await build_process(settings, log, on_ready=lambda *_: None, load=load).run()

    return uvloop.run(run())


def null_script(seconds_per_batch: float) -> Script:
    """Returns the script of an engine that only sleeps."""
    return Script(batch_s=seconds_per_batch, position_s=0.0, faults=False, known=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--seconds-per-batch", type=float, default=0.0, help="time of a batch (default: none)")
    parser.add_argument("--no-log-requests", dest="log_requests", action="store_false", help="as log.requests=false")
    return parser


if __name__ == "__main__":
    sys.exit(main())
