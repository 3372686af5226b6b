"""Options of a run: columns of the input, and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from electra_serve.errors import BulkError
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
            raise BulkError("segment ids and masks need a column of token ids")
        if self.token_ids is not None and self.text_pair is not None:
            raise BulkError("the input must have texts or token ids; got columns for both")

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


DEFAULT_COLUMNS: Final = Columns()
DEFAULT_OPTIONS: Final = EncodeOptions()
