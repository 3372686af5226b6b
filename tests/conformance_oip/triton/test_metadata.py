"""Readiness and descriptions by tritonclient."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.conformance_clients.served import Served
from tests.conformance_oip.samples import ABSENT, ALIAS, CLASSIFIER, ENCODER, OUTPUTS, native_message
from tests.conformance_oip.triton.clients import Client, ids

DURATIONS: Final = {
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
}


def numbers(shape: list[Any]) -> list[int]:
    """Converts a shape, whose numbers protobuf's JSON writes as texts."""
    return [int(size) for size in shape]


def test_health(client: Client, served: Served) -> None:
    assert client.call(served, "is_server_live") is True
    assert client.call(served, "is_server_ready") is True


@pytest.mark.parametrize(
    ("model", "version", "ready"),
    [(ENCODER, "", True), (ENCODER, "1", True), (ALIAS, "", True), (ENCODER, "2", False), (ABSENT, "", False)],
)
def test_ready_models(model: str, version: str, ready: bool, client: Client, served: Served) -> None:
    assert client.call(served, "is_model_ready", model, version) is ready


def test_server_metadata(client: Client, served: Served) -> None:
    found = client.metadata(served, "get_server_metadata")
    assert found["name"] == "electra-serve"
    assert found["version"]
    assert {"parameters", "statistics", "model_configuration"} <= set(found["extensions"])


@pytest.mark.parametrize("model", [ENCODER, ALIAS])
def test_model_metadata(model: str, client: Client, served: Served) -> None:
    found = client.metadata(served, "get_model_metadata", model)
    assert (found["name"], found["versions"], found["platform"]) == (ENCODER, ["1"], "electra")
    inputs = {tensor["name"]: (tensor["datatype"], numbers(tensor["shape"])) for tensor in found["inputs"]}
    assert inputs == {
        "token_ids": ("INT64", [-1, -1]),
        "segment_ids": ("INT64", [-1, -1]),
        "padding_mask": ("INT64", [-1, -1]),
        "text": ("BYTES", [-1, 1]),
    }
    outputs = {tensor["name"]: numbers(tensor["shape"]) for tensor in found["outputs"]}
    assert set(outputs) == {*OUTPUTS, "token_counts"}
    assert outputs["token_counts"] == [-1]
    width = outputs["mean_output"][1]
    assert width > 0
    assert outputs["sequence_output"] == [-1, -1, width]


def test_outputs_are_those_of_the_metadata(client: Client, served: Served) -> None:
    """A request without outputs gets all, in their order, with the listed datatypes and shapes."""
    listed = client.metadata(served, "get_model_metadata", ENCODER)["outputs"]
    result = client.infer(served, ENCODER, ids())
    for tensor in listed:
        array = result.as_numpy(tensor["name"])
        assert array.dtype == {"FP32": np.float32, "INT32": np.int32}[tensor["datatype"]]
        sizes = numbers(tensor["shape"])
        assert len(array.shape) == len(sizes)
        assert all(size in {-1, found} for size, found in zip(sizes, array.shape, strict=True))
    response = result.get_response()
    outputs = response["outputs"] if client.is_http else response.outputs
    assert [out["name"] if client.is_http else out.name for out in outputs] == [tensor["name"] for tensor in listed]


def test_a_model_without_a_tokenizer_lists_no_text(client: Client, served: Served) -> None:
    found = client.metadata(served, "get_model_metadata", CLASSIFIER)
    assert "text" not in {tensor["name"] for tensor in found["inputs"]}
    assert {tensor["name"]: numbers(tensor["shape"]) for tensor in found["outputs"]}["logits"] == [-1, 2]


def test_config(client: Client, served: Served) -> None:
    found = client.metadata(served, "get_model_config", ENCODER)
    config = found if client.is_http else found["config"]
    assert config["name"] == ENCODER
    assert config["max_batch_size"] > 0
    inputs = {tensor["name"]: (tensor["data_type"], numbers(tensor["dims"])) for tensor in config["input"]}
    assert inputs["token_ids"] == ("TYPE_INT64", [-1])
    assert inputs["text"] == ("TYPE_STRING", [1])
    outputs = {tensor["name"]: (tensor["data_type"], len(tensor.get("dims", ()))) for tensor in config["output"]}
    assert outputs["sequence_output"] == ("TYPE_FP32", 2)
    assert outputs["mean_output"] == ("TYPE_FP32", 1)
    assert outputs["token_counts"] == ("TYPE_INT32", 1)
    assert [tensor["name"] for tensor in config["output"] if "reshape" in tensor] == ["token_counts"]
    assert "dynamic_batching" in config
    assert set(outputs) >= set(OUTPUTS)


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_descriptions_of_absent_models(method: str, client: Client, served: Served) -> None:
    message = native_message(served, model=ABSENT, token_ids=[[2, 3]])
    with pytest.raises(InferenceServerException) as caught:
        client.call(served, method, ABSENT)
    assert caught.value.status() == client.status(404, "NOT_FOUND")
    assert caught.value.message() == message


def test_statistics(client: Client, served: Served) -> None:
    def counts() -> dict[str, Any]:
        (found,) = client.metadata(served, "get_inference_statistics", ENCODER)["model_stats"]
        assert found["name"] == ENCODER
        assert found["version"] == "1"
        return dict(found)

    before = counts()
    rows = len(ids()["token_ids"])
    client.infer(served, ENCODER, ids(), outputs=["cls_output"])
    after = counts()
    assert set(after["inference_stats"]) >= {"success", "queue", "compute_infer"}
    assert set(after["inference_stats"]) <= DURATIONS
    grown = {
        name: int(after.get(name, 0)) - int(before.get(name, 0)) for name in ("inference_count", "execution_count")
    }
    assert grown["inference_count"] == rows
    assert 1 <= grown["execution_count"] <= rows
    successes = [int(found["inference_stats"]["success"].get("count", 0)) for found in (before, after)]
    assert successes[1] == successes[0] + 1
    assert int(after["inference_stats"]["success"]["ns"]) > 0


def test_statistics_of_all_models(client: Client, served: Served) -> None:
    found = client.metadata(served, "get_inference_statistics")["model_stats"]
    assert sorted(model["name"] for model in found) == [CLASSIFIER, ENCODER]


def test_repository_index(client: Client, served: Served) -> None:
    found = client.metadata(served, "get_model_repository_index")
    models = found if client.is_http else found["models"]
    assert sorted((model["name"], model["version"], model["state"]) for model in models) == [
        (CLASSIFIER, "1", "READY"),
        (ENCODER, "1", "READY"),
    ]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("register_system_shared_memory", ("region", "/region", 100)),
        ("get_system_shared_memory_status", ()),
        ("get_cuda_shared_memory_status", ()),
        ("get_trace_settings", ()),
        ("get_log_settings", ()),
        ("load_model", (ENCODER,)),
        ("unload_model", (ENCODER,)),
    ],
)
def test_unsupported_extensions(method: str, arguments: tuple[Any, ...], client: Client, served: Served) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.call(served, method, *arguments)
    assert caught.value.status() == client.status(501, "UNIMPLEMENTED")
    assert "exception occurred in the client" not in caught.value.message()
