"""Rejections as tritonclient raises them: its own exception, with the service's message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pytest
from ml_dtypes import bfloat16
from tritonclient.utils import InferenceServerException

from tests.conformance_clients.served import KEY, Served
from tests.conformance_oip.samples import (
    ABSENT,
    CLASSIFIER,
    ENCODER,
    IDS,
    LONG,
    Array,
    mask,
    native_message,
    rectangle,
    texts,
)
from tests.conformance_oip.triton.clients import Client, ids

IDS_INPUT: Final = rectangle(IDS)
# Inputs that the protocol can express and the service does not take, with words of the message
BAD_INPUTS: Final[Mapping[str, tuple[Mapping[str, Array], str]]] = {
    "none of ids and text": ({"padding_mask": mask(IDS)}, "token_ids and text"),
    "ids and text": ({"token_ids": IDS_INPUT, "text": texts(["a"])}, "token_ids and text"),
    "unknown": ({"token_ids": IDS_INPUT, "pixels": IDS_INPUT}, "inputs must be among"),
    "twice": ({"token_ids": IDS_INPUT, "input_ids": IDS_INPUT}, "once"),
    "another shape": ({"token_ids": IDS_INPUT, "padding_mask": mask(IDS)[:, :-1]}, "shape of padding_mask"),
    "three axes": ({"token_ids": IDS_INPUT[np.newaxis]}, "dimensions"),
    "triples": ({"text": texts([("a", "b", "c")])}, "shape of text"),
    "ids that are texts": ({"token_ids": texts(["a"])}, "datatype of token_ids"),
    "texts that are ids": ({"text": IDS_INPUT}, "datatype of text"),
    "masks that are 2": ({"token_ids": IDS_INPUT, "padding_mask": 2 * mask(IDS)}, "padding_mask"),
    "only padding": ({"token_ids": IDS_INPUT, "padding_mask": 0 * mask(IDS)}, "padding_mask"),
    "segments that are 2": ({"token_ids": IDS_INPUT, "segment_ids": 2 * mask(IDS)}, "segment_ids"),
    "an id beyond the vocabulary": ({"token_ids": IDS_INPUT + 10**6}, "token_ids"),
    "a negative id": ({"token_ids": -IDS_INPUT}, "token_ids"),
    "text that is not UTF-8": ({"text": np.array([b"\xff\xfe"], np.object_)}, "UTF-8"),
}


def rejected(client: Client, served: Served, *args: Any, **options: Any) -> InferenceServerException:
    """Infers, and returns what is raised."""
    with pytest.raises(InferenceServerException) as caught:
        client.infer(served, *args, **options)
    assert "exception occurred in the client" not in str(caught.value.message())
    return caught.value


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs(name: str, client: Client, served: Served) -> None:
    inputs, words = BAD_INPUTS[name]
    error = rejected(client, served, ENCODER, inputs)
    assert error.status() == client.status(400, "INVALID_ARGUMENT")
    assert words in error.message()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bfloat16], ids=lambda dtype: dtype.__name__)
def test_floats(dtype: Any, client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, ids(dtype))
    assert error.status() == client.status(400, "INVALID_ARGUMENT")
    assert "datatype of token_ids" in error.message()


def test_absent_models(client: Client, served: Served) -> None:
    error = rejected(client, served, ABSENT, ids())
    assert error.status() == client.status(404, "NOT_FOUND")
    assert error.message() == native_message(served, model=ABSENT, token_ids=IDS)


def test_absent_versions(client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, ids(), model_version="2")
    assert error.status() == client.status(404, "NOT_FOUND")
    assert "version 1" in error.message()


def test_unknown_outputs(client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, ids(), outputs=["probabilities"])
    assert error.status() == client.status(400, "INVALID_ARGUMENT")
    assert "outputs must be among" in error.message()


def test_outputs_of_other_heads(client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, ids(), outputs=["logits"])
    assert error.status() == client.status(400, "INVALID_ARGUMENT")
    assert error.message() == native_message(served, model=ENCODER, token_ids=IDS, outputs=["logits"])


def test_text_for_a_model_without_a_tokenizer(client: Client, served: Served) -> None:
    error = rejected(client, served, CLASSIFIER, {"text": texts(["a"])})
    assert error.status() == client.status(400, "INVALID_ARGUMENT")
    assert error.message() == native_message(served, model=CLASSIFIER, text=["a"])


def test_long_texts(client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, {"text": texts([LONG])})
    assert error.status() == client.status(400, "INVALID_ARGUMENT")
    assert error.message() == native_message(served, model=ENCODER, text=[LONG])


def test_too_many_rows(client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, {"token_ids": np.full((3000, 2), 5)})
    assert error.status() == client.status(413, "RESOURCE_EXHAUSTED")
    assert "3000" in error.message()


@pytest.mark.parametrize("parameter", [{"truncate": "yes"}, {"truncate": 1}])
def test_bad_parameters(parameter: Mapping[str, Any], client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, ids(), parameters=parameter)
    assert error.status() == client.status(400, "INVALID_ARGUMENT")
    assert "truncate" in error.message()


def test_classification(client: Client, served: Served) -> None:
    """An extension that the service does not list."""
    output = client.output("mean_output", class_count=2)
    with pytest.raises(InferenceServerException) as caught:
        client.call(served, "infer", ENCODER, [client.input("token_ids", IDS_INPUT)], outputs=[output])
    assert caught.value.status() in {client.status(400, "INVALID_ARGUMENT"), client.status(501, "UNIMPLEMENTED")}
    assert "classification" in caught.value.message()


def test_shared_memory(client: Client, served: Served) -> None:
    tensor = client.tensors.InferInput("token_ids", [1, 2], "INT64")
    tensor.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException) as caught:
        client.call(served, "infer", ENCODER, [tensor])
    assert caught.value.status() in {client.status(400, "INVALID_ARGUMENT"), client.status(501, "UNIMPLEMENTED")}
    assert "shared memory" in caught.value.message()


def test_deadlines_of_the_request(client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, ids(), timeout=1)
    assert error.status() == client.status(504, "DEADLINE_EXCEEDED")
    assert error.message()


def test_deadlines_of_the_client(client: Client, served: Served) -> None:
    if client.is_http:
        pytest.skip("tritonclient's HTTP clients have timeouts of sockets only")
    error = rejected(client, served, ENCODER, ids(), client_timeout=1e-6)
    assert "DEADLINE_EXCEEDED" in str(error.status()) or "Deadline" in error.message()


@pytest.mark.parametrize(
    "headers",
    [None, {"authorization": "Bearer another"}, {"x-api-key": "another"}],
    ids=["none", "bearer", "x-api-key"],
)
def test_keys_are_needed(headers: Mapping[str, str] | None, client: Client, served: Served) -> None:
    error = rejected(client, served, ENCODER, ids(), headers=headers and dict(headers))  # the clients add to it
    assert error.status() == client.status(401, "UNAUTHENTICATED")
    assert "key" in error.message()


def test_keys_in_the_other_header(client: Client, served: Served) -> None:
    result = client.infer(served, ENCODER, ids(), outputs=["cls_output"], headers={"x-api-key": KEY})
    assert result.as_numpy("cls_output").shape[0] == len(IDS)


def test_probes_need_no_key(client: Client, served: Served) -> None:
    assert client.call(served, "is_server_live", headers=None)
    assert client.call(served, "is_server_ready", headers=None)
