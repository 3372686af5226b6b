"""A loaded model that encodes tables: the unit of work of `encode`, and of any other process that maps batches.

encoder = Encoder.load("./encoder")
vectors = encoder.encode(table)       # columns of the ids and of the outputs, and `error`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa

from electra_serve import __version__
from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.planner import Planner
from electra_serve.bulk.columns import OutputColumns
from electra_serve.bulk.engines import Computed, EnginePool
from electra_serve.bulk.options import DEFAULT_COLUMNS, DEFAULT_OPTIONS, LABELS, Columns, EncodeOptions
from electra_serve.bulk.preparation import UNLIMITED, Prepared, Preparer, Row
from electra_serve.bulk.reading import START
from electra_serve.bulk.values import Chunk, Problem, plain_array, values_of
from electra_serve.bulk.windows import DEFAULT_LIMITS, Window, cut_windows
from electra_serve.engine.factory import LoadedModel, load_model
from electra_serve.engine.profiling import Timings
from electra_serve.errors import BulkConflict, InvalidInput
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.sources import default_sources
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.classification.plan import Plan, make_plan
from electra_serve.serving.classification.results import ClassifyOptions
from electra_serve.serving.embed import choose_prompt
from electra_serve.serving.embedding import configured_embedding
from electra_serve.serving.loader import ModelLoader
from electra_serve.serving.tokenization import TextLimits, longest_cut
from electra_serve.serving.validation import InputLimits
from electra_serve.settings.schema import ModelSettings, Settings
from electra_serve.tensors import ENCODER_OUTPUTS, Output, TextInput, TokenInput, Truncation

ERROR: Final = "error"  # column of the reasons for rejected rows
ROW: Final = "row"  # column of row numbers, without an id column
_ONE_ID: Final = np.ones(1, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Rows of a window that were encoded, and reasons for the others."""

    kept: Sequence[int]  # indices in the window
    arrays: Sequence[pa.Array]  # output columns of the kept rows
    rejected: Sequence[tuple[int, str]]  # indices in the window, with reasons
    tokens: int


class Encoder:
    """Encodes rows with a loaded model.

    Args:
        settings: The model's settings.
        loaded: The model.
        columns: Columns of the input.
        options: Options of the computation.
        service: Limits and batching of the service.

    Raises:
        BulkConflict: The model cannot compute an output, or reads no text.
    """

    def __init__(
        self,
        settings: ModelSettings,
        loaded: LoadedModel,
        columns: Columns,
        options: EncodeOptions,
        service: Settings,
    ) -> None:
        self.columns = columns
        self.loaded = loaded
        batching = settings.batching_over(service.batching)
        limits = settings.limits_over(service.limits)
        config = loaded.preset.config
        embedding = configured_embedding(loaded.preset.embedding, settings.embedding)
        names = _output_names(loaded, options)
        input_limits = InputLimits(config.vocab_size, config.num_segments, config.max_sequence_length, UNLIMITED)
        if columns.token_ids is None and isinstance(loaded.tokenizer, NoTokenizer):
            raise BulkConflict(f"{loaded.preset.id} reads no text: {loaded.tokenizer.reason}; use columns of token ids")
        if columns.token_ids is not None and options.truncation is Truncation.ONLY_SECOND:
            raise BulkConflict("truncation only_second needs pairs of texts; got token ids")
        prompt = _prompt(names, options, columns, embedding)
        plan = self._plan(names, options, input_limits)
        self.outputs = OutputColumns(names, config.hidden_dim, embedding, options.dtype, loaded.preset.head, plan)
        self._preparer = Preparer(
            loaded.tokenizer,
            input_limits,
            TextLimits(limits.max_text_characters, UNLIMITED),
            options.truncation,
            prompt=prompt,
            plan=plan,
        )
        self._max_characters, self._batching = limits.max_text_characters, batching
        self._options = replace(options, outputs=names)
        self._prompt = prompt
        self._pool = EnginePool(loaded.engines, self._planner(loaded.timings), self.outputs.widths, config.vocab_size)

    @classmethod
    def load(
        cls,
        preset: str | ModelSettings,
        columns: Columns = DEFAULT_COLUMNS,
        options: EncodeOptions = DEFAULT_OPTIONS,
        service: Settings | None = None,
        *,
        load: ModelLoader | None = None,
    ) -> Self:
        """Loads a preset with the service's settings; blocks for seconds, and longer if it fetches files.

        Raises:
            StartupError: The model cannot be loaded, or an option does not fit it.
        """
        common = Settings() if service is None else service
        settings = ModelSettings(preset=preset) if isinstance(preset, str) else preset
        loader = load or partial(load_model, sources=default_sources(common.hub))
        loaded = loader(settings, settings.batching_over(common.batching))
        if loaded.lone is not None:  # no request is alone
            loaded.lone.close()
            loaded = replace(loaded, lone=None, lone_timings={})
        return cls(settings, loaded, columns, options, common)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the engines after their running batches."""
        self._pool.close()
        for engine in self.loaded.all_engines:
            engine.close()

    def encode(self, table: pa.Table) -> pa.Table:
        """Encodes the rows of a table.

        Returns:
            A table of as many rows: the id column if there is one, the outputs, and `error` with the reason why a row
            was rejected. Outputs of such a row are null.

        Raises:
            BulkConflict: A column is missing or has another type.
        """
        missing = [name for name in self.columns.needed if name not in table.column_names]
        if missing:
            raise BulkConflict(
                f"the table must have a column {missing[0]}; it has {', '.join(table.column_names)[:200]}"
            )
        chunk = Chunk(values_of({name: table[name] for name in self.columns.values}, self.columns))
        windows = cut_windows(iter([(START, chunk)]), self.prepare, self.outputs.weigh, DEFAULT_LIMITS)
        parts = [self._with_errors(window, self.finish(window, self.submit(window))) for window in windows]
        fields = [*self.outputs.fields, pa.field(ERROR, pa.string())]
        encoded = pa.Table.from_batches(parts, pa.schema(fields))
        if self.columns.id is None:
            return encoded
        return encoded.add_column(0, self.columns.id, plain_array(table[self.columns.id]))

    def use_timings(self, timings: Timings) -> None:
        """Plans by another cost table, of the same shapes: results are then those of the run that timed it."""
        self._pool.planner = self._planner(timings)

    def prepare(self, chunk: Chunk) -> list[Row]:
        """Tokenizes and checks the rows of a chunk."""
        return self._preparer.prepare(chunk.values)

    def submit(self, window: Window) -> Computed:
        """Starts to compute a window."""
        return self._pool.submit([encoding for _, row in window.accepted for encoding in row.encodings])

    def finish(self, window: Window, computed: Computed) -> Encoded:
        """Waits for a window and returns its columns."""
        computed.wait()
        accepted = window.accepted
        arrays = self.outputs.arrays([row for _, row in accepted], computed)
        failed = dict(_failed_rows(accepted, computed.failed))
        kept = [index for index, _ in accepted if index not in failed]
        if failed:
            places = pa.array([place for place, (index, _) in enumerate(accepted) if index not in failed], pa.int64())
            arrays = [array.take(places) for array in arrays]
        problems = [(index, row.reason) for index, row in enumerate(window.rows) if isinstance(row, Problem)]
        return Encoded(kept, arrays, sorted([*problems, *failed.items()]), computed.tokens)

    def describe(self) -> dict[str, object]:
        """Returns everything that decides the outputs, as JSON values; the cost table is separate."""
        preset, signature = self.loaded.preset, self.loaded.engines[0].signature
        return {
            "model": {
                "preset": preset.id,
                "sha256": preset.sha256,
                "weights": preset.weights,
                "head": preset.head_name,
                "pooling": self.outputs.embedding.pooling,
                "normalize": self.outputs.embedding.normalize,
                "prompt": self._prompt,
            },
            "engine": {
                "engine": signature.engine,
                "device": signature.device,
                "dtype": signature.dtype,
                "shapes": [[shape.rows, shape.length] for shape in signature.shapes],
                "version": _package_version(signature.engine),
                "electra_serve": __version__,
            },
            "options": self._options.describe(),
            "limits": {
                "max_text_characters": self._max_characters,
                "max_batch_tokens": self._batching.max_batch_tokens,
                "target_batch_s": self._batching.target_batch_s,
            },
        }

    def _planner(self, timings: Timings) -> Planner:
        batching = self._batching
        return Planner(
            CostTable(timings), max_positions=batching.max_batch_tokens, target_batch_s=batching.target_batch_s
        )

    def _with_errors(self, window: Window, encoded: Encoded) -> pa.RecordBatch:
        """Returns all rows of a window, with nulls for rejected ones."""
        reasons = dict(encoded.rejected)
        arrays = list(encoded.arrays)
        if reasons:
            places = dict(zip(encoded.kept, range(len(encoded.kept)), strict=True))
            taken = pa.array([places.get(index) for index in range(len(window.rows))], pa.int64())
            arrays = [array.take(taken) for array in arrays]
        errors = pa.array([reasons.get(index) for index in range(len(window.rows))], pa.string())
        return pa.record_batch([*arrays, errors], names=[*(field.name for field in self.outputs.fields), ERROR])

    def _plan(self, names: Sequence[str], options: EncodeOptions, limits: InputLimits) -> Plan | None:
        """Returns the options of labels; None if they are no output."""
        head = self.loaded.preset.head
        if LABELS not in names or head is None:
            if options.top_k is not None:
                raise BulkConflict("top_k needs the output labels")
            return None
        longest = limits.max_sequence_length
        if not isinstance(self.loaded.tokenizer, NoTokenizer):
            longest = longest_cut(self.loaded.tokenizer, limits)
        try:
            plan = make_plan(
                head, ClassifyOptions(top_k=options.top_k), _example(self.columns, head), options.truncation, longest
            )
        except InvalidInput as error:
            raise BulkConflict(error.message) from error
        if plan.stride is not None and len(names) > 1:
            raise BulkConflict("labels of question answering must be the only output: a row has several sequences")
        return plan


def _prompt(names: Sequence[str], options: EncodeOptions, columns: Columns, embedding: EmbeddingConfig) -> str:
    """Returns the prefix of each text, as the service's embedding APIs choose it."""
    applies = Output.EMBEDDING.value in names and columns.token_ids is None
    if not applies:
        if options.prompt_name is not None:
            raise BulkConflict("a prompt needs texts and the output embedding")
        return ""
    try:
        return choose_prompt(embedding, options.prompt_name, None)
    except InvalidInput as error:
        raise BulkConflict(error.message) from error


def _output_names(loaded: LoadedModel, options: EncodeOptions) -> tuple[str, ...]:
    """Returns the names of the outputs, checked against the model."""
    head = loaded.preset.head
    names = tuple(options.outputs) or ((LABELS,) if head else (Output.EMBEDDING.value,))
    served = [output.value for output in Output if output in ENCODER_OUTPUTS or output is Output.EMBEDDING]
    served += [head.output.value, LABELS] if head else []
    wrong = [name for name in names if name not in served]
    if wrong or len(set(names)) < len(names):
        raise BulkConflict(
            f"outputs of {loaded.preset.id}, whose head is {loaded.preset.head_name}, must be among "
            f"{', '.join(served)}, each once; got {', '.join(names):.200}"
        )
    return names


def _example(columns: Columns, head: HeadConfig) -> TextInput | TokenInput:
    """Returns an input of the same form as all rows."""
    if columns.token_ids is not None:
        segments = None if columns.segment_ids is None else [_ONE_ID]
        return TokenInput([_ONE_ID], segments)
    pair = columns.text_pair is not None
    if head.kind == "question_answering" and not pair:
        raise BulkConflict(
            "question answering needs a column of questions and one of contexts; got one column of texts"
        )
    return TextInput([("a", "b") if pair else "a"])


def _failed_rows(accepted: Sequence[tuple[int, Prepared]], failed: dict[int, str]) -> list[tuple[int, str]]:
    """Returns rows of which a sequence failed, with the reason."""
    found = []
    start = 0
    for index, row in accepted:
        end = start + len(row.encodings)
        reason = next((failed[at] for at in range(start, end) if at in failed), None) if failed else None
        if reason is not None:
            found.append((index, reason))
        start = end
    return found


def _package_version(name: str) -> str:
    for package in (name, f"{name}-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
