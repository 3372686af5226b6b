"""`electra-serve compile`: compiles a preset for one engine. Imports no Keras."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from electra_serve.engine.selection import choose_engine
from electra_serve.errors import PresetError, ServiceError
from electra_serve.presets.artifact import ARTIFACT_FILE, DTYPES, read_artifact
from electra_serve.presets.files import read_lines
from electra_serve.presets.folder import HeadChoice, PresetFolder
from electra_serve.presets.heads import read_head
from electra_serve.presets.sources import default_sources, resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.serving.validation import InputLimits, validate
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Encoding, IntArray, TokenInput, Truncation

if TYPE_CHECKING:
    from electra_serve.engine.openvino.artifact import Compiled

MIN_TEXTS: Final = 16
MAX_TEXTS: Final = 400  # most texts of the comparison, which takes a minute on two cores
MAX_TEXT_BYTES: Final = 16 * 2**20
RANDOM_SEQUENCES: Final = 64
RANDOM_LENGTHS: Final = (8, 128)  # shortest and longest random sequence, for presets without a tokenizer


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Adds the command and its flags to `parser`, those of all settings included for `hub`."""
    parser.add_argument("preset", metavar="PRESET", help="a preset, as for serve")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the artifact to write; new or empty")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="type of the computation (default: %(default)s)"
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        type=Path,
        help=f"texts for the comparison with float32, one per line, similar to those of requests; up to {MAX_TEXTS} "
        "are used; default: a built-in set",
    )
    parser.add_argument("--random-weights", action="store_true", help="compile random weights, for load tests")
    parser.add_argument("--head", choices=get_args(HeadChoice), default="auto", help="none: leave out the head")
    parser.add_argument("--keep", action="store_true", help="keep an existing artifact of this preset and dtype")
    source = add_flags(parser)

    def run(flags: argparse.Namespace) -> int:
        hubs = default_sources(read_settings(flags, source, os.environ).hub)
        preset = resolve_preset(flags.preset, load_weights=not flags.random_weights, sources=hubs)
        preset = preset.with_head(flags.head)
        return _compile(preset, flags)

    parser.set_defaults(run=run)


def _compile(preset: PresetFolder, flags: argparse.Namespace) -> int:
    if preset.artifact is not None:
        raise PresetError(
            f"cannot compile {preset.id}: it is an artifact already; compile its source, {preset.artifact.preset}"
        )
    if flags.keep and _made_already(preset, flags):
        sys.stdout.write(f"{flags.folder} exists already\n")
        return 0
    choose_engine(ModelSettings(preset=flags.preset, engine="openvino"))
    encodings = _encodings(preset, flags.texts)
    # Imported here so that an invalid preset fails at once.
    from electra_serve.engine.openvino.artifact import compile_preset

    compiled = compile_preset(
        preset, flags.folder, dtype=flags.dtype, encodings=encodings, load_weights=not flags.random_weights
    )
    sys.stdout.writelines(f"{name:<18}{value}\n" for name, value in _report(compiled, flags.folder).items())
    return 0


def _made_already(preset: PresetFolder, flags: argparse.Namespace) -> bool:
    """Returns True if the folder has the artifact already, as on the second run of a pod's init container."""
    if not (flags.folder / ARTIFACT_FILE).exists():
        return False
    found = read_artifact(flags.folder)
    same_head = read_head(flags.folder) == preset.head
    return same_head and (found.preset, found.preset_sha256, found.dtype) == (preset.id, preset.sha256, flags.dtype)


def _encodings(preset: PresetFolder, file: Path | None) -> Sequence[Encoding]:
    """Tokenizes the texts as for requests, truncated to the model's limit."""
    tokenizer = load_tokenizer(preset)
    longest = preset.config.max_sequence_length
    if isinstance(tokenizer, NoTokenizer):
        if file is not None:
            raise PresetError(f"cannot use --texts: {preset.id} accepts no text: {tokenizer.reason}")
        return _validated(preset, TokenInput(_random_rows(preset.config.vocab_size, longest)))
    texts = [text for text in _texts(file) if text.strip()]
    if len(texts) < MIN_TEXTS:
        raise PresetError(f"{file} must have at least {MIN_TEXTS} texts, one per line; got {len(texts)}")
    texts = texts[:: -(-len(texts) // MAX_TEXTS)]  # evenly spread, since a file may be sorted
    longest = min(longest, tokenizer.max_length or longest)
    tokenized = tokenizer.encode(texts, max_length=longest, truncation=Truncation.LONGEST_FIRST)
    return _validated(preset, TokenInput(tokenized.token_ids, tokenized.segment_ids))


def _texts(file: Path | None) -> Sequence[str]:
    if file is not None:
        return read_lines(file, max_bytes=MAX_TEXT_BYTES)
    return resources.files("electra_serve.engine.openvino").joinpath("sample_texts.txt").read_text("utf-8").splitlines()


def _random_rows(vocab_size: int, longest: int) -> list[IntArray]:
    generator = np.random.default_rng(0)
    shortest, most = (min(length, longest) for length in RANDOM_LENGTHS)
    lengths = generator.integers(shortest, most, RANDOM_SEQUENCES, endpoint=True)
    return [generator.integers(0, vocab_size, length) for length in lengths]


def _validated(preset: PresetFolder, tokens: TokenInput) -> Sequence[Encoding]:
    config = preset.config
    limits = InputLimits(config.vocab_size, config.num_segments, config.max_sequence_length, len(tokens.token_ids))
    try:
        return validate(tokens, limits).encodings
    except ServiceError as error:
        raise PresetError(f"cannot compile {preset.id}: its tokenizer makes invalid ids: {error}") from error


def _report(compiled: Compiled, folder: Path) -> dict[str, object]:
    preset, agrees = compiled.preset, compiled.agreement
    report: dict[str, object] = {
        "written": folder,
        "preset": preset.artifact.preset if preset.artifact else preset.id,
        "dtype": preset.artifact.dtype if preset.artifact else "",
        "weights": preset.weights,
        "head": preset.head_name,
        "megabytes": f"{sum(file.stat().st_size for file in preset.weight_files) / 1e6:,.1f}",
        "sha256": preset.sha256,
    }
    if agrees is None:
        return {**report, "accuracy": "not measured: this CPU does not support that dtype"}
    report |= {
        "against float32": f"on {agrees.texts} texts",
        "token cosine": f"≥ {agrees.token_cosine:.6f}",
        "mean cosine": f"≥ {agrees.mean_cosine:.6f}",
        "same neighbor": f"{agrees.same_neighbor:.0%}",
    }
    return report if agrees.same_label is None else {**report, "same label": f"{agrees.same_label:.1%}"}
