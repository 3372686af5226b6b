"""The messages of electra.v1, from a client's side, against what the server's codec makes of them."""

from __future__ import annotations

from dataclasses import asdict

import grpc
import numpy as np
import pytest

from electra_serve import errors
from electra_serve.api.grpc.decode import OUTPUTS, to_input, to_options, to_truncation
from electra_serve.api.grpc.model_info import from_model_info
from electra_serve.api.grpc.render import from_classified, from_result, join
from electra_serve.api.grpc.status import code_of, details, trailing_metadata
from electra_serve.client import grpc_codec
from electra_serve.client.request import ClassifyOptions, EmbedQuery, RerankQuery
from electra_serve.client.response import RankedDocument, RequestLimits, RerankResponse, ShapeCost
from electra_serve.errors import TransportError
from electra_serve.presets.heads import HeadKind
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_floats
from electra_serve.serving.classification import results
from electra_serve.serving.classification.find import Found
from electra_serve.serving.classify import ClassifyResult
from electra_serve.serving.encode import EncodeResult
from electra_serve.tensors import Aggregation, Output, TextInput, TokenInput, Truncation
from tests.fake_service import LOADING, READY, row_output
from tests.unit.client.test_request import query


def test_ids_reach_the_server() -> None:
    asked = query(token_ids=[[1, 2], [3]], segment_ids=[[0, 1], [0]], padding_mask=[[1, 1], [1]])
    received = to_input(grpc_codec.to_request(asked), 8)
    assert isinstance(received, TokenInput)
    for sent, got in ((asked.token_ids, received.token_ids), (asked.segment_ids, received.segment_ids)):
        assert sent is not None
        assert got is not None
        assert [row.tolist() for row in sent] == [row.tolist() for row in got]
    assert received.padding_mask is not None


def test_ids_beyond_32_bits_reach_the_server_as_they_are() -> None:
    received = to_input(grpc_codec.to_request(query(token_ids=[[2**40]])), 8)
    assert isinstance(received, TokenInput)
    assert received.token_ids[0].tolist() == [2**40]


def test_texts_reach_the_server() -> None:
    assert to_input(grpc_codec.to_request(query(text=["a", ("b", "")])), 8) == TextInput(("a", ("b", "")))
    assert to_input(grpc_codec.to_request(query(text=[])), 8) == TextInput(())


def test_options_reach_the_server() -> None:
    request = grpc_codec.to_request(query(text="a", model="m", outputs=["cls_output"], truncate=True))
    assert (request.model, list(request.outputs), request.truncate) == ("m", [pb.OUTPUT_CLS], True)
    assert {OUTPUTS[value]: value for value in OUTPUTS} == grpc_codec.OUTPUTS


@pytest.mark.parametrize("truncation", [None, *Truncation])
def test_truncation_reaches_the_server(truncation: Truncation | None) -> None:
    request = grpc_codec.to_request(query(text="a", truncation=truncation))
    assert to_truncation(request) is (truncation or Truncation.NONE)


@pytest.mark.parametrize("aggregation", [None, *Aggregation])
def test_options_of_a_classification_reach_the_server(aggregation: Aggregation | None) -> None:
    options = ClassifyOptions(3, raw_scores=True, aggregation=aggregation, stride=0, max_answer_length=9)
    request = grpc_codec.to_classify_request(query(text=[("a", "b")], model="m", truncation="left"), options)
    received = to_options(request)
    assert (received.top_k, received.raw_scores, received.aggregation) == (3, True, aggregation)
    assert (received.stride, received.max_answer_length, request.model) == (0, 9, "m")
    assert to_input(request, 8) == TextInput((("a", "b"),))
    assert to_truncation(request) is Truncation.LEFT


def test_options_that_are_left_out_stay_so() -> None:
    received = to_options(grpc_codec.to_classify_request(query(text="a"), ClassifyOptions()))
    assert (received.top_k, received.stride, received.max_answer_length) == (None, None, None)


@pytest.mark.parametrize(
    ("head", "member", "rows"),
    [
        ("sequence_classification", "labels", ((results.Label("a", 0.5), results.Label("b", 0.25)), ())),
        ("token_classification", "spans", ((results.Span("a", 0.5, 0, 2, "né", 0),), ())),
        ("replaced_token_detection", "spans", ((results.Span("replaced", 0.5, token_start=0, token_end=1),),)),
        ("question_answering", "answers", ((results.Span("", 0.5, 0, 2, "né", 1),), ())),
    ],
)
def test_a_classification_comes_back(head: HeadKind, member: str, rows: tuple[Found, ...]) -> None:
    result = ClassifyResult("tiny", head, rows, sequences=4, tokens=3, truncated=(True,) * len(rows))
    message = pb.ClassifyResponse.FromString(join(from_classified(result, "r1"), 2**20))
    response = grpc_codec.to_classify_response(message)
    assert message.usage.sequences == 4
    assert (response.model, response.head, response.tokens, response.request_id) == ("tiny", head, 3, "r1")
    assert response.truncated == result.truncated
    found = {name: getattr(response, name) for name in ("labels", "spans", "answers")}
    expected = tuple(tuple(asdict(item) for item in row) for row in rows)
    assert tuple(tuple(asdict(item) for item in row) for row in found.pop(member)) == expected
    assert set(found.values()) == {()}


def test_a_response_becomes_arrays() -> None:
    outputs = frozenset(Output)
    result = EncodeResult(
        "tiny", outputs, (row_output([1, 2], outputs), row_output([3], outputs)), (2, 1), (False, True)
    )
    encoded = grpc_codec.to_response(pb.EncodeResponse.FromString(join(from_result(result, "r1"), 2**20)))
    assert encoded.sequence_output is not None
    assert [row.shape for row in encoded.sequence_output] == [(2, 4), (1, 4)]
    firsts = (1.0, 1.0, 1.5, 1.5)
    arrays = (encoded.pooled_output, encoded.cls_output, encoded.mean_output, encoded.embedding)
    for stacked, first in zip(arrays, firsts, strict=True):
        assert stacked is not None
        np.testing.assert_array_equal(stacked, [[first] * 4, [3.0] * 4])
    assert encoded.logits is not None
    assert encoded.logits.tolist() == [[1.0, 1.0], [3.0, 3.0]]
    assert encoded.token_logits is not None
    assert [row.tolist() for row in encoded.token_logits] == [[[1.0, 1.0], [2.0, 2.0]], [[3.0, 3.0]]]
    assert (encoded.model, encoded.tokens, encoded.truncated, encoded.request_id) == ("tiny", 3, (False, True), "r1")


def test_what_was_not_asked_for_is_none() -> None:
    outputs = frozenset({Output.MEAN})
    result = EncodeResult("m", outputs, (row_output([1], outputs),), (1,), (False,))
    encoded = grpc_codec.to_response(pb.EncodeResponse.FromString(join(from_result(result, ""), 2**20)))
    assert (encoded.sequence_output, encoded.pooled_output, encoded.cls_output) == (None, None, None)
    assert (encoded.logits, encoded.token_logits) == (None, None)


def test_a_broken_response_is_a_transport_error() -> None:
    broken = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2], data=b"1234")
    with pytest.raises(TransportError):
        grpc_codec.to_response(pb.EncodeResponse(mean_output=broken))


def test_models_are_read() -> None:
    model = grpc_codec.to_model(from_model_info(READY))
    assert (model.name, model.preset, model.state) == ("tiny", "presets/tiny", "ready")
    assert (model.weights, model.pooler) == ("random", "random")
    assert model.config is not None
    assert (model.config["dropout"], model.config["hidden_dim"]) == (0.0, 4)
    assert (model.limits, model.text) == (RequestLimits(8, 512), False)
    assert model.batch_shapes == (ShapeCost(1, 16, 1e-3), ShapeCost(4, 128, 1e-2))
    assert (model.batch_tokens, model.aliases) == (4096, ("other",))
    assert (model.head, model.labels, model.activation) == ("sequence_classification", ("bad", "good"), "softmax")
    assert model.problem_type == "single_label_classification"
    loading = grpc_codec.to_model(from_model_info(LOADING))
    assert (loading.state, loading.weights, loading.pooler) == ("loading", None, None)
    assert loading.aliases == ()
    assert (loading.config, loading.text, loading.batch_tokens) == (None, None, None)
    assert (loading.head, loading.labels, loading.activation) == (None, (), None)


@pytest.mark.parametrize("kind", [c for c in errors.ServiceError.__subclasses__() if c.__module__ == errors.__name__])
def test_the_server_s_errors_come_back(kind: type[errors.ServiceError]) -> None:
    raised = kind("told", field="token_ids[3]", retry_after_s=0.25)
    error = grpc_codec.to_error(code_of(raised), details(raised, "r1"), dict(trailing_metadata(raised, "r1")))
    assert isinstance(error, kind)
    assert (error.field, error.retry_after_s) == ("token_ids[3]", 0.25)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, TransportError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.PayloadTooLarge),
        (grpc.StatusCode.UNAVAILABLE, TransportError),
        (grpc.StatusCode.UNIMPLEMENTED, TransportError),
    ],
)
def test_grpc_s_own_errors_are_mapped_by_their_status(status: grpc.StatusCode, kind: type[Exception]) -> None:
    assert isinstance(grpc_codec.to_error(status, None, {"electra-error-code": b"binary"}), kind)


def test_texts_to_embed_reach_the_server() -> None:
    query = EmbedQuery.of(("a", "b"), model="m", prompt_name="query", input_type=None, dimensions=2, priority="high")
    message = grpc_codec.to_embed_request(query)
    assert [text.first for text in message.text.texts] == ["a", "b"]
    assert (message.model, message.prompt_name, message.dimensions) == ("m", "query", 2)
    assert not message.HasField("input_type")
    assert not message.HasField("normalize")
    assert grpc_codec.to_metadata(query) == (("x-priority", "high"),)


def test_documents_reach_the_server() -> None:
    query = RerankQuery.of("q", ("a", "b"), model=None, top_n=1, raw_scores=True, priority="low")
    message = grpc_codec.to_rerank_request(query)
    assert message == pb.RerankRequest(query="q", documents=["a", "b"], top_n=1, raw_scores=True)


def test_vectors_and_rankings_come_back() -> None:
    usage = pb.Usage(sequences=2, tokens=7)
    embeddings = from_floats(np.array([[0, 1], [1, 1]], np.float32))
    embedded = grpc_codec.to_embed_response(
        pb.EmbedResponse(model="m", embeddings=embeddings, usage=usage, truncated=[True, False], request_id="r")
    )
    assert embedded.embeddings.tolist() == [[0, 1], [1, 1]]
    assert (embedded.model, embedded.tokens, embedded.truncated, embedded.request_id) == ("m", 7, 1, "r")
    results = [pb.RankedDocument(index=1, score=0.5)]
    ranked = grpc_codec.to_rerank_response(
        pb.RerankResponse(model="m", results=results, usage=usage, truncated=[True, False], request_id="r")
    )
    assert ranked == RerankResponse("m", (RankedDocument(1, 0.5),), 7, 1, "r")


def test_broken_vectors_are_a_transport_error() -> None:
    broken = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2, 2], data=b"1234")
    with pytest.raises(errors.TransportError):
        grpc_codec.to_embed_response(pb.EmbedResponse(embeddings=broken))
