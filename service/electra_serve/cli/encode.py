"""`electra-serve encode`: encodes files. Imports pyarrow and the engines only when it runs.

The exit code is 0 if the output is complete, 1 if something is at fault, and 2 for wrong arguments. 3 means that input,
output and options do not fit together. A signal ends the run with 128 plus its number. After 1 and a signal, the same
command continues.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from electra_serve.bulk.options import InputShard
from electra_serve.errors import BulkConflict, BulkError, SettingsError
from electra_serve.runtime.memory import use_one_arena
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import EmbeddingSettings, ModelSettings, Settings
from electra_serve.tensors import Truncation

if TYPE_CHECKING:
    from electra_serve.bulk.job import Job, Summary
    from electra_serve.bulk.progress import Progress
    from electra_serve.serving.loader import ModelLoader

SWITCH_INTERVAL_S: Final = 0.0005  # an engine that needs the GIL for its next batch must not wait for the planner
INTERRUPTED: Final = 128
INPUT_FORMATS: Final = ("parquet", "arrow", "csv", "tsv", "jsonl", "text")
OUTPUT_FORMATS: Final = ("parquet", "arrow", "npy")
SHARD_ROWS: Final = 16_384
_EXTRA: Final = ("pyarrow", "tqdm")


def add_encode(parser: argparse.ArgumentParser, load: ModelLoader | None) -> None:
    """Adds the command and its flags to `parser`, those of all settings included."""
    parser.usage = "%(prog)s INPUT OUTPUT --model PRESET [options]"  # not the names of all settings
    parser.add_argument("input", metavar="INPUT", help="a file, a quoted pattern such as 'data/*.parquet', or -")
    parser.add_argument(
        "output", metavar="OUTPUT", type=Path, help="a .parquet, .arrow or .npy file, or a folder of shards"
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="PRESET",
        help="a preset, a model of the settings, or a model's settings as JSON",
    )
    _add_input_flags(parser)
    _add_output_flags(parser)
    source = add_flags(parser)

    def run(flags: argparse.Namespace) -> int:
        settings = read_settings(flags, source, os.environ)
        model = next((model for model in settings.models if flags.model in model.names), None)
        if model is None:
            flags.models = [flags.model]
            model = read_settings(flags, source, os.environ).models[0]
        return _encode(flags, settings, _with_embedding(model, flags), load)

    parser.set_defaults(run=run)


def _add_input_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input-format", choices=INPUT_FORMATS, help="default: by the name, without .gz or .zst")
    add(
        "--input-shard",
        type=_input_shard,
        metavar="INDEX/COUNT",
        help="encode the files of one of COUNT processes, which share the files of INPUT; 0/COUNT is the first",
    )
    add("--text-column", metavar="NAME", default="text", help="column of the texts (default: %(default)s)")
    add("--text-pair-column", metavar="NAME", help="column of the second texts of pairs")
    add("--token-ids-column", metavar="NAME", help="column of lists of token ids, instead of texts")
    add("--segment-ids-column", metavar="NAME", help="column of their segment ids; default: zeros")
    add("--padding-mask-column", metavar="NAME", help="column of their masks; default: ones")
    add("--id-column", metavar="NAME", help="column that is copied to the output; default: row numbers from 0")
    add(
        "--truncate",
        nargs="?",
        const=Truncation.LONGEST_FIRST,
        default=Truncation.NONE,
        type=_truncation,
        metavar="RULE",
        help=f"cut long sequences, by default longest_first; {', '.join(Truncation)}. Without it they are rejected",
    )
    add("--strict", action="store_true", help="stop at the first rejected row")


def _at_least_1(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text:.40}")
    return int(text)


def _truncation(text: str) -> Truncation:
    try:
        return Truncation(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(Truncation)}; got {text:.40}") from error


def _input_shard(text: str) -> InputShard:
    try:
        return InputShard.parse(text)
    except BulkError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_output_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output-format", choices=OUTPUT_FORMATS, help="default: by the name; parquet in a folder")
    add(
        "--outputs",
        metavar="NAMES",
        default="",
        help="embedding, mean_output, cls_output, pooled_output, sequence_output, logits, token_logits or labels, "
        "separated by commas; default: labels if the model has a head, else embedding",
    )
    add("--dtype", choices=("float32", "float16"), default="float32", help="stored type (default: %(default)s)")
    add("--pooling", choices=("mean", "cls"), help="pooling of embedding; default: as the model's files say")
    add("--normalize", action=argparse.BooleanOptionalAction, help="scale embedding to unit length; default likewise")
    add("--prompt-name", metavar="NAME", help="prompt of the model before each text; default: its default prompt")
    add("--top-k", type=_at_least_1, metavar="K", help="most labels or spans of a row; default: all labels, one span")
    add(
        "--shard-rows",
        type=_at_least_1,
        metavar="N",
        default=SHARD_ROWS,
        help="rows that a killed run encodes again at most (default: %(default)s)",
    )


def _with_embedding(model: ModelSettings, flags: argparse.Namespace) -> ModelSettings:
    """Returns the model's settings with the pooling and normalization of the flags."""
    given = {name: getattr(flags, name) for name in ("pooling", "normalize") if getattr(flags, name) is not None}
    if not given:
        return model
    outputs = [name.strip() for name in flags.outputs.split(",") if name.strip()]
    if outputs and "embedding" not in outputs:
        raise BulkConflict(f"--{next(iter(given))} applies to the output embedding, which --outputs must have")
    own = {} if model.embedding is None else model.embedding.model_dump(exclude_unset=True)
    return model.model_copy(update={"embedding": EmbeddingSettings(**{**own, **given})})


def _encode(flags: argparse.Namespace, settings: Settings, model: ModelSettings, load: ModelLoader | None) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    use_one_arena(os.environ)
    # Imported here so that the other commands start without it.
    try:
        from electra_serve.bulk.job import Interrupted, run_job
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise SettingsError("encode needs the extra `bulk`: pip install 'electra-serve[bulk]'") from error
    from electra_serve.observability.logs import configure_logs

    log = configure_logs(settings.log.level, settings.log.format, sys.stderr)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    started = time.perf_counter()
    try:
        summary = run_job(_job(flags, settings, model), log, _progress(log), load=load)
    except Interrupted as error:
        sys.stderr.write(f"electra-serve: {error}\n")
        return INTERRUPTED + error.number
    _print(_report(summary, time.perf_counter() - started))
    return 0


def _print(report: str) -> None:
    """Writes to standard output, if somebody reads it: the output of the run is complete anyway."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(report)
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the exit would write the rest


def _job(flags: argparse.Namespace, settings: Settings, model: ModelSettings) -> Job:
    from electra_serve.bulk.job import Job
    from electra_serve.bulk.options import Columns, EncodeOptions
    from electra_serve.bulk.windows import WindowLimits

    return Job(
        input=flags.input,
        output=flags.output,
        model=model,
        service=settings,
        columns=Columns(
            flags.text_column,
            flags.text_pair_column,
            flags.token_ids_column,
            flags.segment_ids_column,
            flags.padding_mask_column,
            flags.id_column,
        ),
        options=EncodeOptions(
            outputs=tuple(name.strip() for name in flags.outputs.split(",") if name.strip()),
            dtype=flags.dtype,
            truncation=flags.truncate,
            prompt_name=flags.prompt_name,
            top_k=flags.top_k,
        ),
        input_format=flags.input_format,
        output_format=flags.output_format,
        strict=flags.strict,
        limits=WindowLimits(shard_rows=flags.shard_rows),
        shard=flags.input_shard,
    )


def _progress(log: object) -> Callable[[int], Progress]:
    from electra_serve.bulk.progress import ProgressBar, ProgressLog

    def make(rows_before: int) -> Progress:
        return ProgressBar(sys.stderr, rows_before) if sys.stderr.isatty() else ProgressLog(log)  # type: ignore[arg-type]

    return make


def _report(summary: Summary, seconds: float) -> str:
    rejected = f" ({summary.rejected:,} rejected, see {summary.paths.rejects})" if summary.rejected else ""
    if summary.was_complete:
        return f"{summary.paths.output} is complete already: {summary.rows:,} rows{rejected}\n"
    return (
        f"{summary.paths.output}: {summary.rows:,} rows{rejected}, {summary.tokens:,} tokens, "
        f"{seconds:,.0f} s with the start\n"
    )
