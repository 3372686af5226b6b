"""Another library's `package inference` and this one's messages in one process."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from google.protobuf import descriptor_pool

from electra_serve.proto.inference import open_inference_grpc_pb2 as pb

# What tritonclient.grpc registers, with fewer fields
OTHERS_FIRST: Final = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

file = descriptor_pb2.FileDescriptorProto(name="grpc_service.proto", package="inference", syntax="proto3")
other = file.message_type.add(name="ModelInferRequest")
field = descriptor_pb2.FieldDescriptorProto
other.field.add(name="model_name", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
file.service.add(name="GRPCInferenceService").method.add(
    name="ModelInfer", input_type=".inference.ModelInferRequest", output_type=".inference.ModelInferRequest"
)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
theirs = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest"))

import electra_serve.api.grpc.server
from electra_serve import AsyncGrpcElectraClient, GrpcElectraClient
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb

ours = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"1"])
assert theirs.FromString(ours.SerializeToString()).model_name == "m"
assert theirs.DESCRIPTOR.file.pool is not pb.DESCRIPTOR.pool
"""

OURS_FIRST: Final = """
import electra_serve.api.grpc.server
from google.protobuf import descriptor_pb2, descriptor_pool

file = descriptor_pb2.FileDescriptorProto(name="grpc_service.proto", package="inference", syntax="proto3")
file.message_type.add(name="ServerLiveRequest")
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""

CLIENT_ALONE: Final = """
import sys
from electra_serve import GrpcElectraClient
assert "electra_serve.proto.electra.v1.encoder_pb2" in sys.modules
assert not [name for name in sys.modules if name.startswith("electra_serve.proto.inference")]
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_another_librarys_messages_may_come_first() -> None:
    run(OTHERS_FIRST)


def test_another_librarys_messages_may_come_later() -> None:
    run(OURS_FIRST)


def test_the_client_leaves_them_out() -> None:
    run(CLIENT_ALONE)


def test_a_module_has_the_names_that_protoc_would_set() -> None:
    assert {*pb.DESCRIPTOR.message_types_by_name, *pb.DESCRIPTOR.enum_types_by_name} <= vars(pb).keys()
    assert (pb.TYPE_STRING, pb.DataType.Name(pb.TYPE_INT64)) == (13, "TYPE_INT64")
    assert pb.ModelInferRequest.InferInputTensor.DESCRIPTOR.full_name == "inference.ModelInferRequest.InferInputTensor"
    assert pb.DESCRIPTOR.pool is not descriptor_pool.Default()


def test_numbers_are_those_of_tritons_clients() -> None:
    numbers = {
        "ModelConfig": {
            "name": 1,
            "platform": 2,
            "max_batch_size": 4,
            "input": 5,
            "output": 6,
            "dynamic_batching": 11,
            "backend": 17,
        },
        "ModelInput": {"name": 1, "data_type": 2, "dims": 4, "optional": 8},
        "ModelOutput": {"name": 1, "data_type": 2, "dims": 3, "reshape": 5},
        "ModelTensorReshape": {"shape": 1},
        "ModelStatistics": {
            "name": 1,
            "version": 2,
            "inference_count": 4,
            "execution_count": 5,
            "inference_stats": 6,
        },
        "InferStatistics": {
            "success": 1,
            "fail": 2,
            "queue": 3,
            "compute_input": 4,
            "compute_infer": 5,
            "compute_output": 6,
            "cache_hit": 7,
            "cache_miss": 8,
        },
        "ModelStreamInferResponse": {"error_message": 1, "infer_response": 2},
        "InferParameter": {
            "bool_param": 1,
            "int64_param": 2,
            "string_param": 3,
            "double_param": 4,
            "uint64_param": 5,
        },
    }
    for message, fields in numbers.items():
        described = pb.DESCRIPTOR.message_types_by_name[message].fields
        assert {field.name: field.number for field in described} == fields
    values = pb.DESCRIPTOR.enum_types_by_name["DataType"].values
    assert {value.name: value.number for value in values} == {
        "TYPE_INVALID": 0,
        "TYPE_INT32": 8,
        "TYPE_INT64": 9,
        "TYPE_FP32": 11,
        "TYPE_STRING": 13,
    }
