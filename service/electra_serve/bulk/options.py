"""Options of a run: columns of the input, and outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self

from electra_serve.errors import BulkConflict
from electra_serve.tensors import Truncation

VectorType = Literal["float32", "float16"]

LABELS: Final = "labels"  # name, among the outputs, of the labels and scores of a head


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of input columns; files of plain lines have only `text`."""

    text: str = "text"
    text_pair: str | None = None  # second text of pairs
    token_ids: str | None = None  # instead of texts
    segment_ids: str | None = None
    padding_mask: str | None = None
    id: str | None = None  # copied to the output; None for row numbers

    def __post_init__(self) -> None:
        if self.token_ids is None and (self.segment_ids or self.padding_mask):
            raise BulkConflict("segment ids and masks need a column of token ids")
        if self.token_ids is not None and self.text_pair is not None:
            raise BulkConflict("the input must have texts or token ids; got columns for both")

    @property
    def values(self) -> tuple[str, ...]:
        """Columns of the sequences."""
        if self.token_ids is not None:
            return tuple(name for name in (self.token_ids, self.segment_ids, self.padding_mask) if name is not None)
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns that are read."""
        return self.values if self.id is None or self.id in self.values else (*self.values, self.id)


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """Options of the computation. Pooling and normalization are in the model's settings."""

    outputs: Sequence[str] = ()  # names of outputs, or `labels`; default: `labels` with a head, else `embedding`
    dtype: VectorType = "float32"  # of stored numbers
    truncation: Truncation = Truncation.NONE
    prompt_name: str | None = None  # of the model's prompts; None for its default
    top_k: int | None = None  # most labels or answer spans of a row

    def describe(self) -> dict[str, object]:
        """Returns the options as JSON values."""
        return {**asdict(self), "outputs": list(self.outputs)}


@dataclass(frozen=True, slots=True)
class InputShard:
    """Part of an input that one of several processes encodes: consecutive files in sorted order."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise BulkConflict(f"an input shard must be INDEX/COUNT, and INDEX from 0 and below COUNT; got {self}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `INDEX/COUNT`; raises `BulkConflict`.

        Example:
            >>> InputShard.parse("0/3")
            InputShard(index=0, count=3)
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise BulkConflict(f"an input shard must be INDEX/COUNT, and INDEX from 0 and below COUNT; got {text:.40}")
        return cls(int(found[1]), int(found[2]))

    def choose(self, files: int) -> range:
        """Returns the indices of its files; raises `BulkConflict` if another shard would have none.

        Example:
            >>> [list(InputShard(index, 3).choose(7)) for index in range(3)]
            [[0, 1], [2, 3], [4, 5, 6]]
        """
        if files < self.count:
            raise BulkConflict(f"the input must have a file for each of {self.count} shards; got {files} files")
        return range(files * self.index // self.count, files * (self.index + 1) // self.count)


DEFAULT_COLUMNS: Final = Columns()
DEFAULT_OPTIONS: Final = EncodeOptions()
