"""The real process, with an engine that computes nothing: `python -m benchmarks.null_service`.

Everything is what `electra-serve serve` runs, but for the loader of models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import uvloop

from benchmarks.null_engine import NullEngine
from electra_serve.engine.factory import LoadedModel
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes
from electra_serve.observability.logs import configure_logs
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.tokenizers.loader import NO_FILES
from electra_serve.runtime.background_writer import BackgroundWriter
from electra_serve.server.bootstrap import build_process
from electra_serve.serving.model_info import ModelInfo
from electra_serve.settings.schema import (
    BatchingSettings,
    GrpcSettings,
    LogSettings,
    ModelSettings,
    RestSettings,
    Settings,
)

NAME = "null"
MAX_LENGTH = 512


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal comes."""
    flags = _parser().parse_args(argv)
    settings = Settings(
        models=(ModelSettings(preset=NAME),),
        rest=RestSettings(port=flags.rest_port),
        grpc=GrpcSettings(port=flags.grpc_port),
        log=LogSettings(format="json", requests=flags.log_requests),
    )
    load = null_loader(flags.hidden_dim, flags.seconds_per_batch)
    log = configure_logs(settings.log.level, settings.log.format, BackgroundWriter(sys.stderr))

    async def run() -> int:
        return await build_process(settings, log, on_ready=_announce, load=load).run()

    return uvloop.run(run())


def null_loader(hidden_dim: int, seconds_per_batch: float) -> Callable[[ModelSettings, BatchingSettings], LoadedModel]:
    """What stands in for `electra_serve.engine.factory.load_model`.

    Args:
        hidden_dim: H of every output; a multiple of 4.
        seconds_per_batch: How long each batch takes.
    """

    def load(_: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        shapes = cpu_shapes(ShapeLimits(MAX_LENGTH, batching.max_batch_tokens))
        engine = NullEngine(hidden_dim, shapes, seconds_per_batch=seconds_per_batch)
        return LoadedModel(_preset(hidden_dim), NO_FILES, (engine,), dict.fromkeys(shapes, seconds_per_batch or 1e-5))

    return load


def _preset(hidden_dim: int) -> PresetFolder:
    config = BackboneConfig(
        vocab_size=30522,
        num_layers=1,
        num_heads=4,
        hidden_dim=hidden_dim,
        embedding_dim=hidden_dim,
        intermediate_dim=4 * hidden_dim,
        max_sequence_length=MAX_LENGTH,
    )
    return PresetFolder(
        id=NAME,
        source="local",
        path=None,
        config=config,
        registered_name="keras_hub>ElectraBackbone",
        sha256=None,
        weights="random",
        weight_files=(),
        has_tokenizer=False,
    )


def _announce(rest_port: int, grpc_port: int, _: Sequence[ModelInfo]) -> None:
    sys.stdout.write(f"ready {rest_port} {grpc_port}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest-port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--grpc-port", type=int, default=0, help="likewise")
    parser.add_argument("--hidden-dim", type=int, default=256, help="width of the outputs (default: %(default)s)")
    parser.add_argument("--seconds-per-batch", type=float, default=0.0, help="what the engine takes (default: nothing)")
    parser.add_argument("--no-log-requests", dest="log_requests", action="store_false", help="as log.requests=false")
    return parser


if __name__ == "__main__":
    sys.exit(main())
