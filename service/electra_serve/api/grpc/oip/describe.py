"""Converts descriptions and totals of models to their messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from electra_serve.api.oip.decode import VERSION
from electra_serve.api.oip.metadata import IndexEntry, ModelMetadata, TensorMetadata
from electra_serve.observability.statistics import Duration, ModelStatistics
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb

DATA_TYPES: Final[Mapping[str, pb.DataType.ValueType]] = MappingProxyType(
    {"INT32": pb.TYPE_INT32, "INT64": pb.TYPE_INT64, "FP32": pb.TYPE_FP32, "BYTES": pb.TYPE_STRING}
)


def from_metadata(model: ModelMetadata) -> pb.ModelMetadataResponse:
    """Returns the description of a model's tensors."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=model.versions,
        platform=model.platform,
        inputs=_tensors(model.inputs),
        outputs=_tensors(model.outputs),
        properties=model.properties,
    )


def to_config(model: ModelMetadata) -> pb.ModelConfigResponse:
    """Returns the configuration of a model; its dimensions are without the batch."""
    return pb.ModelConfigResponse(
        config=pb.ModelConfig(
            name=model.name,
            platform=model.platform,
            backend=model.platform,
            max_batch_size=model.max_batch_size,
            input=[
                pb.ModelInput(
                    name=tensor.name,
                    data_type=DATA_TYPES[tensor.datatype],
                    dims=tensor.dims,
                    optional=tensor.optional,
                )
                for tensor in model.inputs
            ],
            output=[
                pb.ModelOutput(
                    name=tensor.name,
                    data_type=DATA_TYPES[tensor.datatype],
                    dims=tensor.dims,
                    reshape=pb.ModelTensorReshape() if tensor.is_reshaped else None,
                )
                for tensor in model.outputs
            ],
            dynamic_batching=pb.ModelDynamicBatching(),
        )
    )


def from_statistics(models: Sequence[ModelStatistics]) -> pb.ModelStatisticsResponse:
    """Returns the totals of models; durations that are not measured are zero."""
    return pb.ModelStatisticsResponse(model_stats=[_statistics(model) for model in models])


def from_index(entries: Sequence[IndexEntry]) -> pb.RepositoryIndexResponse:
    """Returns the list of models."""
    index = pb.RepositoryIndexResponse.ModelIndex
    return pb.RepositoryIndexResponse(
        models=[
            index(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason) for entry in entries
        ]
    )


def _tensors(tensors: Sequence[TensorMetadata]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    metadata = pb.ModelMetadataResponse.TensorMetadata
    return [metadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape) for tensor in tensors]


def _statistics(model: ModelStatistics) -> pb.ModelStatistics:
    unmeasured = pb.StatisticDuration()
    return pb.ModelStatistics(
        name=model.name,
        version=VERSION,
        inference_count=model.sequences,
        execution_count=model.batches,
        inference_stats=pb.InferStatistics(
            success=_duration(model.success),
            fail=_duration(model.fail),
            queue=_duration(model.queue),
            compute_input=unmeasured,
            compute_infer=_duration(model.compute),
            compute_output=unmeasured,
            cache_hit=unmeasured,
            cache_miss=unmeasured,
        ),
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)
