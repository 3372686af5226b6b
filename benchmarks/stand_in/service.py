"""Loads stand-in engines instead of a model's.

Settings, transports, queue, batcher, lifecycle, presets and tokenizers are the service's own. Only the engine and the
timings of its shapes are not.
"""

from __future__ import annotations

import os

from benchmarks.stand_in.engine import StandInEngine
from benchmarks.stand_in.script import Script
from electra_serve.engine.factory import LoadedModel
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer, load_tokenizer
from electra_serve.settings.schema import BatchingSettings, ModelSettings


def load_stand_in(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
    """Replaces `electra_serve.engine.factory.load_model`; the script is this process' own."""
    preset = resolve_preset(settings.preset, load_weights=settings.load_weights)
    engines = settings.replicas or 1
    return stand_in_model(Script.read(os.environ), preset, load_tokenizer(preset), batching, engines=engines)


def stand_in_model(
    script: Script,
    preset: PresetFolder,
    tokenizer: Tokenizer | NoTokenizer,
    batching: BatchingSettings,
    *,
    engines: int = 1,
) -> LoadedModel:
    """Makes a model on engines that follow a script."""
    shapes = cpu_shapes(ShapeLimits(preset.config.max_sequence_length, batching.max_batch_tokens))
    made = tuple(StandInEngine(script, preset.config.hidden_dim, shapes) for _ in range(engines))
    return LoadedModel(preset, tokenizer, made, {shape: script.seconds(shape) or 1e-5 for shape in shapes})


def bare_preset(name: str, config: BackboneConfig, *, has_tokenizer: bool = False) -> PresetFolder:
    """Makes a preset of random weights that has no files."""
    return PresetFolder(
        id=name,
        source="local",
        path=None,
        config=config,
        registered_name="keras_hub>ElectraBackbone",
        sha256=None,
        weights="random",
        weight_files=(),
        has_tokenizer=has_tokenizer,
    )
