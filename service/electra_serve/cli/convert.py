"""`electra-serve presets convert`: writes a preset in the other library's format."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

from electra_serve.presets.folder import HeadChoice
from electra_serve.presets.sources import resolve_preset


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Adds the command and its flags to `parser`."""
    parser.add_argument("source", metavar="SOURCE", help="a preset, as for serve")
    parser.add_argument("destination", metavar="DEST", type=Path, help="folder to write; new or empty")
    parser.add_argument("--to", required=True, choices=("keras", "transformers"), help="format to write")
    parser.add_argument("--head", choices=get_args(HeadChoice), default="auto", help="none: leave out the head")
    parser.set_defaults(run=_convert)


def _convert(flags: argparse.Namespace) -> int:
    source = resolve_preset(flags.source).with_head(flags.head)
    # Imported here so that an invalid source fails at once; Keras takes seconds.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from electra_serve.model.conversion import convert

    written = convert(source, flags.destination, flags.to)
    rows = {
        "written": flags.destination,
        "format": written.format,
        "parameters": f"{written.parameters:,}",
        "weights": written.weights,
        "pooler": written.pooler,
        "head": written.head_name,
        "activation": written.config.hidden_activation,
        "tokenizer": "yes" if written.has_tokenizer else "no",
        "revision": written.revision,
    }
    sys.stdout.writelines(f"{name:<12}{value}\n" for name, value in rows.items())
    return 0
