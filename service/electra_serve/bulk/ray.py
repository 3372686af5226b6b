"""Encodes batches of a Ray dataset: a class for `ray.data.Dataset.map_batches`. It does not import Ray.

Each actor loads the model once. A batch stays a dictionary of numpy arrays or a pyarrow table. It keeps its rows and
columns, and gets those of the outputs and `error`, the reason why a row was rejected. A batch depends on nothing else,
so Ray may repeat it after an actor died.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, get_args

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from electra_serve.bulk.encoder import ERROR
from electra_serve.bulk.encoder import Encoder as TableEncoder
from electra_serve.bulk.options import Columns, EncodeOptions, VectorType
from electra_serve.engine.threads import arrange
from electra_serve.errors import BulkError, SettingsError
from electra_serve.serving.loader import ModelLoader
from electra_serve.settings.loader import hub_settings_from_environment
from electra_serve.settings.messages import Origins, describe
from electra_serve.settings.schema import EmbeddingSettings, ModelSettings, Settings
from electra_serve.tensors import Truncation

Batch = TypeVar("Batch")  # a dictionary of numpy arrays, or a pyarrow table
_Array = np.ndarray[Any, np.dtype[Any]]


class Encoder:
    """Encodes batches; parameters are those of `electra-serve encode`.

    Args:
        model: A preset, or a model's settings, such as its `engine`, `device`, `limits` and `batching`.
        text_column: Column of the texts.
        text_pair_column: Column of the second texts of pairs.
        token_ids_column: Column of lists of token ids, instead of texts.
        segment_ids_column: Column of their segment ids.
        padding_mask_column: Column of their masks.
        truncate: A rule, or true for `longest_first`; without it, long sequences are rejected.
        outputs: Names of outputs; default: `labels` if the model has a head, else `embedding`.
        dtype: Stored type.
        pooling: Pooling of `embedding`; default: as the model's files say.
        normalize: True to scale `embedding` to unit length; default likewise.
        prompt_name: Prompt of the model before each text.
        top_k: Most labels or spans of a row.
        strict: True to fail on a rejected row.
        load: Loads the model; default: as the service does.

    Raises:
        StartupError: The model cannot be loaded, or an option does not fit it.

    Example:
        dataset.map_batches(
            Encoder,
            fn_constructor_kwargs={"model": "./encoder", "normalize": True},
            batch_format="pyarrow",
            batch_size=4096,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=4,
        )
    """

    def __init__(
        self,
        model: str | Mapping[str, Any] | ModelSettings,
        *,
        text_column: str = "text",
        text_pair_column: str | None = None,
        token_ids_column: str | None = None,
        segment_ids_column: str | None = None,
        padding_mask_column: str | None = None,
        truncate: bool | str = False,
        outputs: Sequence[str] = (),
        dtype: VectorType = "float32",
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt_name: str | None = None,
        top_k: int | None = None,
        strict: bool = False,
        load: ModelLoader | None = None,
    ) -> None:
        columns = Columns(text_column, text_pair_column, token_ids_column, segment_ids_column, padding_mask_column)
        options = EncodeOptions(tuple(outputs), _stored_type(dtype), _rule(truncate), prompt_name, top_k)
        settings = _model_settings(model, {"pooling": pooling, "normalize": normalize})
        self._strict = strict
        self._encoder = TableEncoder.load(
            _within_resources(settings, _assigned_resources()),
            columns,
            options,
            Settings(hub=hub_settings_from_environment()),
            load=load,
        )

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch with columns of the outputs and of errors; those of a rejected row are null.

        numpy has no null: numbers of a rejected row are NaN, and its lists are empty.

        Raises:
            BulkError: A column is missing, has another type or the name of an output; or strict, and a row is rejected.
        """
        if isinstance(batch, pa.Table):
            return cast("Batch", self._table(batch))
        if isinstance(batch, dict):
            return cast("Batch", self._arrays(batch))
        raise BulkError(f"batch_format must be numpy or pyarrow; got a batch of type {type(batch).__name__}")

    def _table(self, batch: pa.Table) -> pa.Table:
        self._check_names(batch.column_names)
        encoded = self._encode(batch)
        for field, column in zip(encoded.schema, encoded.columns, strict=True):
            batch = batch.append_column(field, column)
        return batch

    def _arrays(self, batch: dict[str, _Array]) -> dict[str, _Array]:
        self._check_names(list(batch))
        needed = [name for name in self._encoder.columns.needed if name in batch]
        encoded = self._encode(pa.table({name: _arrow_column(name, batch[name]) for name in needed}))
        return {**batch, **{name: _numpy_column(encoded[name]) for name in encoded.column_names}}

    def _check_names(self, names: Sequence[str]) -> None:
        outputs = [field.name for field in self._encoder.outputs.fields]
        taken = [name for name in (*outputs, ERROR) if name in names]
        if taken:
            raise BulkError(f"a batch must not have a column {taken[0]}, the name of an output; rename or drop it")

    def _encode(self, table: pa.Table) -> pa.Table:
        encoded = self._encoder.encode(table)
        if self._strict and encoded[ERROR].null_count < len(encoded):
            reason = encoded[ERROR].drop_null()[0].as_py()
            raise BulkError(f"a row was rejected: {reason}")
        return encoded


def _rule(truncate: bool | str) -> Truncation:
    if isinstance(truncate, bool):
        return Truncation.LONGEST_FIRST if truncate else Truncation.NONE
    if truncate not in list(Truncation):
        raise BulkError(f"truncate must be a boolean or one of {', '.join(Truncation)}; got {truncate:.40}")
    return Truncation(truncate)


def _stored_type(dtype: VectorType) -> VectorType:
    if dtype not in get_args(VectorType):
        raise BulkError(f"dtype must be {' or '.join(get_args(VectorType))}; got {dtype:.40}")
    return dtype


def _model_settings(model: str | Mapping[str, Any] | ModelSettings, embedding: Mapping[str, object]) -> ModelSettings:
    """Returns the model's settings, with those of `embedding` that are not None."""
    given = {name: value for name, value in embedding.items() if value is not None}
    try:
        found = ModelSettings.model_validate({"preset": model} if isinstance(model, str) else model)
        if not given:
            return found
        own = {} if found.embedding is None else found.embedding.model_dump(exclude_unset=True)
        return found.model_copy(update={"embedding": EmbeddingSettings.model_validate({**own, **given})})
    except ValidationError as error:
        raise SettingsError(describe(error, Origins())) from error


def _assigned_resources() -> Mapping[str, float] | None:
    """Returns the processors and GPUs that Ray assigned to this actor; None outside of one."""
    ray = sys.modules.get("ray")  # imported in each actor, and never by this module
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    resources: Mapping[str, float] = context.get_assigned_resources()
    return resources if context.get_actor_id() is not None else None


def _within_resources(model: ModelSettings, resources: Mapping[str, float] | None) -> ModelSettings:
    """Limits engines to the resources of an actor: Ray counts processors, but lets each process see all of them."""
    if resources is None or resources.get("GPU") or model.device.startswith("gpu"):
        return model
    update: dict[str, object] = {"device": "cpu"}
    if not model.replicas and not model.threads and model.engine != "jax":
        arrangement = arrange(0, 0, max(1, int(resources.get("CPU", 1))))
        update |= {"replicas": arrangement.engines, "threads": arrangement.threads}
    return model.model_copy(update=update)


def _arrow_column(name: str, values: _Array) -> pa.Array:
    """Makes a column of texts or lists; raises `BulkError` for other values."""
    try:
        if values.ndim > 1:
            return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BulkError(f"cannot read column {name} of a batch: {reason}") from error


def _numpy_column(column: pa.ChunkedArray) -> _Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunks
        array = pa.array([], column.type)
    if pa.types.is_fixed_size_list(array.type):
        return _vectors(array)
    if not pa.types.is_nested(array.type):
        return cast("_Array", array.to_numpy(zero_copy_only=False))
    rows: _Array = np.empty(len(array), object)
    for index, row in enumerate(array):
        rows[index] = _list_row(row, array.type)
    return rows


def _vectors(array: pa.FixedSizeListArray) -> _Array:
    """Returns (N, W), with NaN for nulls."""
    width = array.type.list_size
    vectors = np.full((len(array), width), np.nan, array.type.value_type.to_pandas_dtype())
    vectors[array.is_valid().to_numpy(zero_copy_only=False)] = array.flatten().to_numpy().reshape(-1, width)
    return vectors


def _list_row(row: pa.ListScalar, type_: pa.DataType) -> _Array | list[object]:
    """Returns hidden states as (T, W), and other lists as they are."""
    if not pa.types.is_fixed_size_list(type_.value_type):
        return row.as_py() or []
    values = pa.array([], type_.value_type) if row.values is None else row.values
    return _vectors(values)
