"""The files of an input that a run encodes: all of them, or those of one shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from electra_serve.bulk.inputs import STDIN, Format, InputFile, digested, list_inputs
from electra_serve.bulk.options import InputShard
from electra_serve.bulk.reading import count_rows
from electra_serve.errors import BulkConflict


@dataclass(frozen=True, slots=True)
class InputPart:
    """Files to encode, and the number of their first row in the whole input."""

    files: Sequence[InputFile]
    first_row: int | None = 0  # None if earlier files must be read to count their rows
    description: dict[str, int | None] | None = None  # of the shard, as JSON values


def find_part(pattern: str, format_: Format | None, shard: InputShard | None, own: Path | None = None) -> InputPart:
    """Finds and digests the files of a shard, or of the whole input, without the files of `own`, the output.

    Raises:
        BulkError: A file is missing, cannot be read or has no known format.
        BulkConflict: There are fewer files than shards, or the input is standard input.
    """
    files = list_inputs(pattern, format_, own)
    if shard is None:
        return InputPart([digested(file) for file in files])
    if pattern == STDIN:
        raise BulkConflict("standard input must be encoded by one process; got an input shard")
    chosen = shard.choose(len(files))
    first_row = count_rows(files[: chosen.start])
    description = {
        "index": shard.index,
        "count": shard.count,
        "first_file": chosen.start,
        "files": len(files),  # of the whole input, so that a file that was added later is detected
        "first_row": first_row,
    }
    return InputPart([digested(files[index]) for index in chosen], first_row, description)
