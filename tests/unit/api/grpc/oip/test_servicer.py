"""The unary calls of the Open Inference Protocol over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import pytest
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from electra_serve import __version__, errors
from electra_serve.api.grpc.oip.servicer import SERVICE_NAME
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.proto.electra.v1 import encoder_pb2
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.serving.model_info import ModelState
from electra_serve.serving.request_context import Priority
from electra_serve.tensors import Output, TextInput, TokenInput, Truncation
from tests.fake_service import LOADING, READY, FakeService
from tests.unit.api.grpc.conftest import SETTINGS, Running, serve
from tests.unit.api.grpc.oip.conftest import SERVICE, InputTensor, call, ids, infer
from tests.unit.api.grpc.test_servicer import failing, failure
from tests.waiting import until

KEY: Final = "shop-0123456789abcdef"
PROBES: Final = {
    "ServerLive": pb.ServerLiveRequest(),
    "ServerReady": pb.ServerReadyRequest(),
    "ModelReady": pb.ModelReadyRequest(name="tiny"),
}
KEYED: Final[dict[str, Message]] = {
    "ServerMetadata": pb.ServerMetadataRequest(),
    "ModelMetadata": pb.ModelMetadataRequest(name="tiny"),
    "ModelInfer": ids([1]),
    "ModelConfig": pb.ModelConfigRequest(name="tiny"),
    "ModelStatistics": pb.ModelStatisticsRequest(name="tiny"),
    "RepositoryIndex": pb.RepositoryIndexRequest(),
}
NAMED: Final = {
    "ModelMetadata": pb.ModelMetadataRequest,
    "ModelConfig": pb.ModelConfigRequest,
    "ModelStatistics": pb.ModelStatisticsRequest,
}


async def test_a_raw_request_gets_a_raw_response(serving: Running) -> None:
    response = await infer(serving, ids([1, 2], [3, 4], outputs=["last_hidden_state", "token_counts"], id="42"))
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "42")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in response.outputs] == [
        ("last_hidden_state", "FP32", [2, 2, 4]),
        ("token_counts", "INT32", [2]),
    ]
    assert not any(tensor.HasField("contents") for tensor in response.outputs)
    states, counts = response.raw_output_contents
    assert np.frombuffer(states, "<f4").tolist() == [float(i) for i in (1, 2, 3, 4) for _ in range(4)]
    assert np.frombuffer(counts, "<i4").tolist() == [2, 2]


async def test_a_typed_request_gets_a_typed_response(serving: Running) -> None:
    contents = pb.InferTensorContents(bytes_contents=["é".encode(), b"ab"])
    response = await infer(
        serving,
        pb.ModelInferRequest(
            model_name="tiny",
            inputs=[InputTensor(name="text", datatype="BYTES", shape=[2, 1], contents=contents)],
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="pooler_output")],
        ),
    )
    assert serving.service.requests[0].input == TextInput(("é", "ab"))
    [tensor] = response.outputs
    assert (tensor.name, list(tensor.shape), len(response.raw_output_contents)) == ("pooler_output", [2, 4], 0)
    assert list(tensor.contents.fp32_contents) == [233.0] * 4 + [97.0] * 4


async def test_all_outputs_of_the_model_are_the_default(serving: Running) -> None:
    response = await infer(serving, ids([1, 2], outputs=()))
    metadata = pb.ModelMetadataResponse.FromString(
        await call(serving, "ModelMetadata", pb.ModelMetadataRequest(name="tiny"))
    )
    assert [tensor.name for tensor in response.outputs] == [tensor.name for tensor in metadata.outputs]
    for tensor, described in zip(response.outputs, metadata.outputs, strict=True):
        assert tensor.datatype == described.datatype
        assert all(size in {-1, actual} for size, actual in zip(described.shape, tensor.shape, strict=True))


async def test_masks_and_segments_reach_the_service(serving: Running) -> None:
    request = ids([5, 6], [7, 0])
    request.inputs.add(name="token_type_ids", datatype="UINT8", shape=[2, 2])
    request.inputs.add(name="attention_mask", datatype="BOOL", shape=[2, 2])
    request.raw_input_contents.extend([b"\0\1\0\0", b"\1\1\1\0"])
    await infer(serving, request)
    [seen] = serving.service.requests
    assert isinstance(seen.input, TokenInput)
    assert seen.input.segment_ids is not None
    assert seen.input.padding_mask is not None
    assert [row.tolist() for row in seen.input.segment_ids] == [[0, 1], [0, 0]]
    assert [row.tolist() for row in seen.input.padding_mask] == [[1, 1], [1, 0]]
    assert (seen.outputs, seen.rectangular) == (frozenset({Output.MEAN}), True)


@pytest.mark.parametrize(
    ("parameters", "metadata", "priority"),
    [
        ({}, (), Priority.NORMAL),
        ({"priority": {"uint64_param": 1}}, (), Priority.HIGH),
        ({"priority": {"int64_param": 1}}, (), Priority.HIGH),
        ({"priority": {"uint64_param": 7}}, (), Priority.LOW),
        ({"priority": {"uint64_param": 0}}, (("x-priority", "low"),), Priority.LOW),
        ({"priority": {"uint64_param": 1}}, (("x-priority", "low"),), Priority.HIGH),
        ({"content_type": {"string_param": "np"}, "nothing": {}}, (), Priority.NORMAL),
    ],
)
async def test_priority_is_a_parameter_or_metadata(
    serving: Running, parameters: dict[str, dict[str, Any]], metadata: tuple[tuple[str, str], ...], priority: Priority
) -> None:
    chosen = {name: pb.InferParameter(**value) for name, value in parameters.items()}
    await call(serving, "ModelInfer", ids([1], parameters=chosen), metadata)
    assert serving.service.requests[0].context.priority is priority


@pytest.mark.parametrize(
    ("timeout_us", "deadline_s", "most"),
    [
        (None, None, None),
        (5_000_000, None, 5),
        (5_000_000, 30.0, 5),
        (30_000_000, 5.0, 6),
        (0, 5.0, 6),
        (0, None, None),
    ],
)
async def test_the_earlier_of_parameter_and_deadline_holds(
    serving: Running, timeout_us: int | None, deadline_s: float | None, most: float | None
) -> None:
    parameters = {} if timeout_us is None else {"timeout": pb.InferParameter(int64_param=timeout_us)}
    infer_call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = serving.channel.unary_unary(f"{SERVICE}/ModelInfer")
    await infer_call(ids([1], parameters=parameters).SerializeToString(), timeout=deadline_s)
    timeout_s = serving.service.requests[0].context.timeout_s
    assert (timeout_s is None) if most is None else (timeout_s is not None and 1 < timeout_s <= most)


async def test_truncate_is_a_parameter(serving: Running) -> None:
    await infer(serving, ids([1], parameters={"truncate": pb.InferParameter(bool_param=True)}))
    assert serving.service.requests[0].truncation is Truncation.LONGEST_FIRST


@pytest.mark.parametrize("request_id", ["", "42", "a b", "ü" * 700])
async def test_an_id_comes_back_whatever_it_is(serving: Running, request_id: str) -> None:
    response = await infer(serving, ids([1], id=request_id))
    assert response.id == request_id
    [entry] = serving.log.entries
    assert entry["request_id"] == "42" if request_id == "42" else len(entry["request_id"]) == 32


async def test_requests_are_counted_and_logged_under_their_model(serving: Running) -> None:
    await infer(serving, ids([1, 2], [3, 4]))
    assert serving.count("ok", transport="oip_grpc") == 1
    [entry] = serving.log.entries
    expected = ("oip_grpc", "ModelInfer", "tiny", 2, 4)
    assert tuple(entry[name] for name in ("transport", "method", "model", "sequences", "tokens")) == expected


async def test_contents_raw_and_typed_are_rejected_with_tritons_sentence(serving: Running) -> None:
    request = ids([1])
    request.inputs[0].contents.int_contents.append(1)
    status, text, metadata = await failure(infer(serving, request))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert text == (
        "contents field must not be specified when using raw_input_contents for 'token_ids' for model 'tiny'"
    )
    assert (metadata["electra-error-code"], metadata["electra-error-field"]) == ("invalid_input", "token_ids")


@pytest.mark.parametrize(
    ("field", "spelled"),
    [
        ("token_ids[3][0]", "input_ids[3][0]"),
        ("padding_mask[1]", "attention_mask[1]"),
        ("model", "model"),
        (None, None),
    ],
)
async def test_fields_of_errors_are_the_clients_names(serving: Running, field: str | None, spelled: str | None) -> None:
    serving.service.before = failing(errors.InvalidInput("no", field=field))
    request = ids([1])
    request.inputs[0].name = "input_ids"
    request.inputs.add(name="attention_mask", datatype="BOOL", shape=[1, 1])
    request.raw_input_contents.append(b"\1")
    _, text, metadata = await failure(call(serving, "ModelInfer", request, (("x-request-id", "r1"),)))
    assert (text, metadata.get("electra-error-field"), metadata["x-request-id"]) == ("no", spelled, "r1")


@pytest.mark.parametrize("error", [kind("told") for kind in errors.ServiceError.__subclasses__()], ids=lambda e: e.code)
async def test_an_error_of_the_service_ends_the_call_with_its_slug(
    serving: Running, error: errors.ServiceError
) -> None:
    serving.service.before = failing(error)
    _, text, metadata = await failure(infer(serving, ids([1])))
    assert metadata["electra-error-code"] == error.code
    assert text == "told" or error.internal
    assert serving.count(error.code, transport="oip_grpc") == 1


async def test_a_call_is_rejected_unread_without_room(serving: Running) -> None:
    serving.service.full = errors.Overloaded("full", retry_after_s=0.25)
    _, _, metadata = await failure(serving.raw(f"{SERVICE}/ModelInfer", b"\xff"))
    assert (metadata["electra-error-code"], metadata["grpc-retry-pushback-ms"]) == ("overloaded", "250")


async def test_a_client_that_leaves_cancels_its_request(serving: Running, caplog: pytest.LogCaptureFixture) -> None:
    serving.service.gate.clear()
    leaving = serving.raw(f"{SERVICE}/ModelInfer", ids([1]).SerializeToString())
    await until(lambda: len(serving.service.requests) == 1)
    leaving.cancel()
    await until(lambda: serving.service.cancelled == 1)
    await until(lambda: serving.count("cancelled", transport="oip_grpc") == 1)
    await until(lambda: serving.in_flight("oip_grpc") == 0)
    assert caplog.records == []


async def test_a_draining_server_finishes_its_requests_and_takes_no_more(serving: Running) -> None:
    serving.service.gate.clear()
    accepted = asyncio.create_task(infer(serving, ids([1])))
    await until(lambda: len(serving.service.requests) == 1)
    stopping = asyncio.create_task(serving.server.stop(30))
    await asyncio.sleep(0)
    status, _, metadata = await failure(infer(serving, ids([2])))
    assert (status, metadata["electra-error-code"]) == (grpc.StatusCode.UNAVAILABLE, "shutting_down")
    assert not stopping.done()
    serving.service.gate.set()
    assert len((await accepted).outputs) == 1
    async with asyncio.timeout(5):
        await stopping


async def test_probes_report_the_service_and_its_models(serving: Running) -> None:
    async def ready(name: str, version: str = "") -> bool:
        request = pb.ModelReadyRequest(name=name, version=version)
        return pb.ModelReadyResponse.FromString(await call(serving, "ModelReady", request)).ready

    assert pb.ServerLiveResponse.FromString(await call(serving, "ServerLive", pb.ServerLiveRequest())).live
    for state in (True, False):
        serving.service.ready = state
        response = await call(serving, "ServerReady", pb.ServerReadyRequest())
        assert pb.ServerReadyResponse.FromString(response).ready is state
    assert [await ready(*model) for model in (("tiny",), ("tiny", "1"), ("tiny", "2"), ("big",), ("none",), ("",))] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert serving.log.entries == []


@pytest.mark.parametrize("method", PROBES)
@pytest.mark.parametrize(("data", "code"), [(b"\xff", "malformed_request"), (b"a" * 4097, "payload_too_large")])
async def test_probes_reject_other_messages(method: str, data: bytes, code: str) -> None:
    async with serve(SETTINGS.model_copy(update={"max_request_bytes": 8192}), oip=True) as running:
        _, text, metadata = await failure(running.raw(f"{SERVICE}/{method}", data))
    assert metadata["electra-error-code"] == code
    assert text


async def test_the_server_describes_itself(serving: Running) -> None:
    response = pb.ServerMetadataResponse.FromString(await call(serving, "ServerMetadata", pb.ServerMetadataRequest()))
    assert (response.name, response.version) == ("electra-serve", __version__)
    assert {"statistics", "model_configuration"} <= set(response.extensions)


async def test_a_configuration_has_the_dimensions_without_the_batch() -> None:
    async with serve(SETTINGS, oip=True, service=FakeService(replace(READY, text=True))) as running:
        data = await call(running, "ModelConfig", pb.ModelConfigRequest(name="tiny", version="1"))
        described = pb.ModelMetadataResponse.FromString(
            await call(running, "ModelMetadata", pb.ModelMetadataRequest(name="tiny", version="1"))
        )
    config = pb.ModelConfigResponse.FromString(data).config
    assert (config.name, config.platform, config.backend, config.max_batch_size) == ("tiny", "electra", "electra", 8)
    assert [(tensor.name, tensor.data_type, list(tensor.dims), tensor.optional) for tensor in config.input] == [
        ("token_ids", pb.TYPE_INT64, [-1], True),
        ("segment_ids", pb.TYPE_INT64, [-1], True),
        ("padding_mask", pb.TYPE_INT64, [-1], True),
        ("text", pb.TYPE_STRING, [1], True),
    ]
    assert config.HasField("dynamic_batching")
    assert [tensor.name for tensor in config.output if tensor.HasField("reshape")] == ["token_counts"]
    assert list(config.output[-1].reshape.shape) == []
    dims = [(tensor.name, list(tensor.dims)) for tensor in config.input]
    dims += [(tensor.name, list(tensor.dims)) for tensor in config.output]
    shapes = [(tensor.name, list(tensor.shape[1:]) or [1]) for tensor in (*described.inputs, *described.outputs)]
    assert dims == shapes
    assert described.properties["max_sequence_length"] == "512"


async def test_statistics_are_those_of_one_model_or_of_all(serving: Running) -> None:
    await infer(serving, ids([1]))
    await failure(infer(serving, ids([1], outputs=["none"])))
    for _ in range(2):  # descriptions count as no requests of a model
        data = await call(serving, "ModelStatistics", pb.ModelStatisticsRequest(name="tiny"))
    [tiny] = pb.ModelStatisticsResponse.FromString(data).model_stats
    assert (tiny.name, tiny.version) == ("tiny", "1")
    assert (tiny.inference_stats.success.count, tiny.inference_stats.fail.count) == (1, 1)
    assert len(tiny.inference_stats.ListFields()) == 8
    data = await call(serving, "ModelStatistics", pb.ModelStatisticsRequest())
    assert [model.name for model in pb.ModelStatisticsResponse.FromString(data).model_stats] == ["tiny", "big"]


async def test_the_index_lists_models_with_their_states(serving: Running) -> None:
    async def index(*, ready: bool) -> list[tuple[str, str, str, str]]:
        data = await call(serving, "RepositoryIndex", pb.RepositoryIndexRequest(ready=ready))
        models = pb.RepositoryIndexResponse.FromString(data).models
        return [(model.name, model.version, model.state, model.reason) for model in models]

    tiny = ("tiny", "1", "READY", "")
    assert await index(ready=True) == [tiny]
    assert await index(ready=False) == [tiny, ("big", "1", "UNAVAILABLE", LOADING.state.value)]


@pytest.mark.parametrize("method", NAMED)
async def test_models_are_named_and_have_one_version(serving: Running, method: str) -> None:
    for name, version, field in (("none", "", "model"), ("n" * 3000, "1", "model"), ("tiny", "2", "model_version")):
        status, _, metadata = await failure(call(serving, method, NAMED[method](name=name, version=version)))
        assert status is grpc.StatusCode.NOT_FOUND
        assert (metadata["electra-error-code"], metadata["electra-error-field"]) == ("model_not_found", field)


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig"])
async def test_a_model_that_loads_has_no_description(serving: Running, method: str) -> None:
    status, _, metadata = await failure(call(serving, method, NAMED[method](name="big")))
    assert (status, metadata["electra-error-code"]) == (grpc.StatusCode.UNAVAILABLE, "model_not_ready")


@pytest.mark.parametrize("method", KEYED)
async def test_broken_messages_are_rejected_and_newer_ones_are_not(serving: Running, method: str) -> None:
    status, _, metadata = await failure(serving.raw(f"{SERVICE}/{method}", b"\x0a\xff"))
    assert (status, metadata["electra-error-code"]) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed_request")
    newer = KEYED[method].SerializeToString() + b"\xfa\x01\x02hi"
    assert await serving.raw(f"{SERVICE}/{method}", newer) is not None


@pytest.mark.parametrize(
    "method",
    [
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryRegister",
        "CudaSharedMemoryStatus",
        "LogSettings",
    ],
)
async def test_other_extensions_are_unimplemented(serving: Running, method: str) -> None:
    status, text, _ = await failure(serving.raw(f"{SERVICE}/{method}", b""))
    assert (status, text) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def test_every_method_of_the_proto_is_served(serving: Running) -> None:
    [servicer] = [served for name, served in serving.server._servicers.items() if name.full_name == SERVICE_NAME]
    methods = servicer.methods()
    assert set(methods) == {method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    # Handlers must run before a message is received.
    assert all(handler.request_streaming for handler in methods.values())


class TestKeys:
    @pytest.fixture
    async def keyed(self, tmp_path: Path) -> AsyncIterator[Running]:
        file = tmp_path / "keys"
        file.write_text(f"shop:{KEY}\n")
        ring = KeyRing(file, structlog.wrap_logger(None, [structlog.testing.LogCapture()]))
        async with serve(SETTINGS, oip=True, authenticator=Authenticator(ring)) as running:
            yield running

    @pytest.mark.parametrize("method", PROBES)
    async def test_probes_need_none(self, keyed: Running, method: str) -> None:
        assert await call(keyed, method, PROBES[method])

    @pytest.mark.parametrize("method", KEYED)
    async def test_other_calls_need_one(self, keyed: Running, method: str) -> None:
        status, _, metadata = await failure(call(keyed, method, KEYED[method]))
        assert (status, metadata["electra-error-code"]) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
        await call(keyed, method, KEYED[method], (("authorization", f"Bearer {KEY}"),))


async def reflected(running: Running, *asked: reflection_pb2.ServerReflectionRequest) -> list[Any]:
    method: grpc.aio.StreamStreamMultiCallable[
        reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    ] = running.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [response async for response in method(iter(asked))]


async def test_reflection_describes_every_service(serving: Running) -> None:
    names = [
        "electra.v1.EncoderService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    requests = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names]
    listed, *described = await reflected(serving, reflection_pb2.ServerReflectionRequest(list_services=""), *requests)
    assert sorted(service.name for service in listed.list_services_response.service) == names
    for name, response in zip(names, described, strict=True):
        files = response.file_descriptor_response.file_descriptor_proto
        assert name.rpartition(".")[2].encode() in files[0]
    by_message = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelStreamInferResponse")
    [response] = await reflected(serving, by_message)
    assert pb.DESCRIPTOR.serialized_pb in response.file_descriptor_response.file_descriptor_proto


async def test_health_knows_the_service(serving: Running) -> None:
    check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = serving.channel.unary_unary("/grpc.health.v1.Health/Check")
    for name in (encoder_pb2.DESCRIPTOR.services_by_name["EncoderService"].full_name, SERVICE_NAME, ""):
        await check(health_pb2.HealthCheckRequest(service=name).SerializeToString())


async def test_nothing_of_it_is_there_when_it_is_off(running: Running) -> None:
    assert (await failure(call(running, "ModelInfer", ids([1]))))[0] is grpc.StatusCode.UNIMPLEMENTED
    check = running.raw(
        "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=SERVICE_NAME).SerializeToString()
    )
    assert (await failure(check))[0] is grpc.StatusCode.NOT_FOUND
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE_NAME)
    [response] = await reflected(running, asked)
    assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_a_model_that_fails_is_not_ready() -> None:
    async with serve(SETTINGS, oip=True, service=FakeService(replace(READY, state=ModelState.FAILED))) as running:
        response = await call(running, "ModelReady", pb.ModelReadyRequest(name="tiny"))
    assert not pb.ModelReadyResponse.FromString(response).ready
