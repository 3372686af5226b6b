"""Descriptions and statistics of models in the protocol's JSON, as Triton writes it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from electra_serve.api.oip.decode import VERSION
from electra_serve.api.oip.metadata import ModelMetadata, TensorMetadata
from electra_serve.api.oip.tensors import BYTES
from electra_serve.observability.statistics import Duration, ModelStatistics

JsonObject = dict[str, object]

_NONE: Final = Duration(0, 0)


def metadata_of(model: ModelMetadata) -> JsonObject:
    """Describes the tensors of a model, with the axis of the batch."""
    return {
        "name": model.name,
        "versions": model.versions,
        "platform": model.platform,
        "properties": model.properties,
        "inputs": [_tensor(tensor) for tensor in model.inputs],
        "outputs": [_tensor(tensor) for tensor in model.outputs],
    }


def config_of(model: ModelMetadata) -> JsonObject:
    """Describes a model as Triton's configuration does, without the axis of the batch."""
    return {
        "name": model.name,
        "platform": model.platform,
        "backend": model.platform,
        "max_batch_size": model.max_batch_size,
        "input": [_config(tensor) | ({"optional": True} if tensor.optional else {}) for tensor in model.inputs],
        "output": [_config(tensor) for tensor in model.outputs],
        "dynamic_batching": {},
    }


def statistics_of(statistics: ModelStatistics) -> JsonObject:
    """Returns the statistics of a model; there is no response cache, and input and output take no separate time."""
    durations = {
        "success": statistics.success,
        "fail": statistics.fail,
        "queue": statistics.queue,
        "compute_input": _NONE,
        "compute_infer": statistics.compute,
        "compute_output": _NONE,
        "cache_hit": _NONE,
        "cache_miss": _NONE,
    }
    return {
        "name": statistics.name,
        "version": VERSION,
        "inference_count": statistics.sequences,
        "execution_count": statistics.batches,
        "inference_stats": {name: asdict(duration) for name, duration in durations.items()},
        "batch_stats": [],
    }


def _tensor(tensor: TensorMetadata) -> JsonObject:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def _config(tensor: TensorMetadata) -> JsonObject:
    datatype = "TYPE_STRING" if tensor.datatype == BYTES else f"TYPE_{tensor.datatype}"
    described: JsonObject = {"name": tensor.name, "data_type": datatype, "dims": tensor.dims}
    return described | {"reshape": {"shape": []}} if tensor.is_reshaped else described
