"""Descriptions of models list exactly what requests may have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from electra_serve.api.oip.decode import InferRequest, decode
from electra_serve.api.oip.metadata import TensorMetadata, describe, index_entry
from electra_serve.api.oip.outputs import to_tensors
from electra_serve.api.oip.tensors import INTEGERS, from_bytes, header_of
from electra_serve.errors import ModelNotReady
from electra_serve.serving.encode import EncodeResult
from electra_serve.serving.model_info import ModelInfo, ModelState
from electra_serve.serving.request_context import NO_CONTEXT
from tests.fake_service import LOADING, READY, row_output

WITHOUT_HEAD = replace(READY, head="none", labels=())
OF_TEXT = replace(READY, text=True)
OF_TOKENS = replace(READY, head="token_classification", labels=("O", "PER"))
EVERY = [READY, WITHOUT_HEAD, OF_TEXT, OF_TOKENS]


def test_a_model_without_tokenizer_takes_ids_alone() -> None:
    assert describe(READY).inputs == [
        TensorMetadata("token_ids", "INT64", (-1, -1)),
        TensorMetadata("segment_ids", "INT64", (-1, -1), optional=True),
        TensorMetadata("padding_mask", "INT64", (-1, -1), optional=True),
    ]


def test_a_model_with_tokenizer_takes_either() -> None:
    inputs = describe(OF_TEXT).inputs
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in inputs] == [
        ("token_ids", "INT64", (-1, -1)),
        ("segment_ids", "INT64", (-1, -1)),
        ("padding_mask", "INT64", (-1, -1)),
        ("text", "BYTES", (-1, 1)),
    ]
    assert all(tensor.optional for tensor in inputs)


def test_outputs_have_the_widths_of_the_model() -> None:
    assert {tensor.name: (tensor.datatype, tensor.shape) for tensor in describe(OF_TOKENS).outputs} == {
        "sequence_output": ("FP32", (-1, -1, 4)),
        "pooled_output": ("FP32", (-1, 4)),
        "cls_output": ("FP32", (-1, 4)),
        "mean_output": ("FP32", (-1, 4)),
        "embedding": ("FP32", (-1, 4)),
        "token_logits": ("FP32", (-1, -1, 2)),
        "token_counts": ("INT32", (-1,)),
    }


@pytest.mark.parametrize(
    ("info", "head"),
    [
        (READY, {"logits": (-1, 2)}),
        (replace(READY, labels=("relevant",)), {"logits": (-1, 1)}),
        (OF_TOKENS, {"token_logits": (-1, -1, 2)}),
        (replace(READY, head="question_answering", labels=("start", "end")), {"token_logits": (-1, -1, 2)}),
        (replace(READY, head="replaced_token_detection", labels=("replaced",)), {"token_logits": (-1, -1, 1)}),
        (WITHOUT_HEAD, {}),
    ],
)
def test_a_head_has_one_output(info: ModelInfo, head: dict[str, tuple[int, ...]]) -> None:
    shapes = {tensor.name: tensor.shape for tensor in describe(info).outputs}
    assert {name: shape for name, shape in shapes.items() if "logits" in name} == head


@pytest.mark.parametrize("info", EVERY)
def test_a_response_has_the_described_tensors(info: ModelInfo) -> None:
    header = header_of("token_ids", "INT64", (2, 3), max_sequences=8)
    data = memoryview(bytes(header.elements * INTEGERS["INT64"].itemsize))
    decoded = decode(InferRequest(info.name, "1", [from_bytes(header, data)], None, {}), info, NO_CONTEXT)
    outputs = decoded.request.outputs
    rows = tuple(row_output([1, 2, 3], outputs) for _ in range(2))
    tensors = to_tensors(EncodeResult(info.name, outputs, rows, (3, 3), (False, False)), decoded.outputs)
    for tensor, described in zip(tensors, describe(info).outputs, strict=True):
        assert (tensor.name, tensor.datatype) == (described.name, described.datatype)
        sizes = zip(tensor.array.shape, described.shape, strict=True)
        assert all(size == expected for size, expected in sizes if expected != -1)


@pytest.mark.parametrize("info", EVERY)
def test_the_described_inputs_are_accepted(info: ModelInfo) -> None:
    for tensor in describe(info).inputs:
        shape = [1 if size == -1 else size for size in tensor.shape]
        assert header_of(tensor.name, tensor.datatype, shape, max_sequences=8).name == tensor.name


def test_limits_are_properties() -> None:
    described = describe(READY)
    assert described.max_batch_size == 8
    assert described.properties == {"max_sequence_length": "512", "max_sequences": "8", "vocab_size": "100"}
    assert (described.name, described.versions, described.platform) == ("tiny", ("1",), "electra")


@pytest.mark.parametrize("state", [ModelState.LOADING, ModelState.FAILED])
def test_a_model_that_is_not_loaded_has_no_description(state: ModelState) -> None:
    with pytest.raises(ModelNotReady, match=f"model big is {state}") as caught:
        describe(replace(LOADING, state=state))
    assert caught.value.field == "model"


@pytest.mark.parametrize("state", ModelState)
def test_the_index_says_which_models_are_ready(state: ModelState) -> None:
    entry = index_entry(replace(READY, state=state))
    ready = state is ModelState.READY
    assert (entry.name, entry.version, entry.state) == ("tiny", "1", "READY" if ready else "UNAVAILABLE")
    assert entry.reason == ("" if ready else state)
