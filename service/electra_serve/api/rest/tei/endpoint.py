"""Endpoints of Text Embeddings Inference's routes that compute."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from electra_serve.api.rest.endpoint import ComputeResult, JsonEndpoint
from electra_serve.api.rest.render import INLINE_FLOATS, PIECE_ITEMS, RunOnThread, in_chunks, nested_lists
from electra_serve.api.rest.tei.decode import (
    Bounds,
    Decoded,
    Q,
    decode_embed,
    decode_ids,
    decode_predict,
    decode_similarity,
    decode_tokenize,
)
from electra_serve.api.rest.tei.model import kind_of, model_name
from electra_serve.api.rest.tei.render import prediction_pieces, similarity_of, token_pieces
from electra_serve.api.service_protocol import EncodeService
from electra_serve.errors import ServiceError
from electra_serve.serving.classify import ClassifyRequest, ClassifyResult
from electra_serve.serving.embed import EmbedRequest, EmbedResult
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.tokens import DetokenizeRequest, DetokenizeResult, TokenizeRequest, TokenizeResult
from electra_serve.serving.transit_budget import Reservation
from electra_serve.tensors import TextInput, TokenInput, Truncation

R = TypeVar("R", bound=ComputeResult)
Serve = Callable[[Request], Awaitable[Response]]

CHARACTERS_HEADER: Final = "x-compute-characters"
TOKENS_HEADER: Final = "x-compute-tokens"


@dataclass(frozen=True, slots=True)
class Computed(Generic[R]):
    """A result, and the characters of its request."""

    result: R
    characters: int

    @property
    def tokens(self) -> int:
        """Unmasked positions."""
        return self.result.tokens


class TeiEndpoint(JsonEndpoint[Decoded[Q], Computed[R]], Generic[Q, R]):
    """Endpoint of the model that `tei_model` names; "" for the only one."""

    def __init__(self, *given: Any, tei_model: str = "", **named: Any) -> None:
        super().__init__(*given, **named)
        self._model = tei_model

    def _bounds(self, context: RequestContext, reservation: Reservation) -> Bounds:
        return Bounds(context, reservation, self._max_sequences, self._settings.max_answer_bytes)

    def _request_of(self, decoded: Decoded[Q]) -> Q:
        return replace(decoded.request, model=model_name(self._service, self._model))

    async def _compute(self, decoded: Decoded[Q]) -> Computed[R]:
        request = self._request_of(decoded)
        return Computed(await self._call(request, decoded), count_characters(request.input))

    @abstractmethod
    async def _call(self, request: Q, decoded: Decoded[Q]) -> R: ...

    def _headers(self, result: Computed[R]) -> Mapping[str, str]:
        return {CHARACTERS_HEADER: str(result.characters), TOKENS_HEADER: str(result.tokens)}


class EmbedEndpoint(TeiEndpoint[EmbedRequest, EmbedResult]):
    """Endpoint of `POST /embed`."""

    route = "POST /embed"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> Decoded[EmbedRequest]:
        return decode_embed(payload, self._bounds(context, reservation))

    async def _call(self, request: EmbedRequest, decoded: Decoded[EmbedRequest]) -> EmbedResult:  # noqa: ARG002
        return await self._service.embed(request)

    async def _render(
        self,
        decoded: Decoded[EmbedRequest],  # noqa: ARG002
        result: Computed[EmbedResult],
        on_thread: RunOnThread,
    ) -> Sequence[bytes]:
        found = result.result
        return await in_chunks(nested_lists(found.vectors), on_thread, large=found.values > INLINE_FLOATS)


class EmbedAllEndpoint(EmbedEndpoint):
    """Endpoint of `POST /embed_all`."""

    route = "POST /embed_all"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> Decoded[EmbedRequest]:
        return decode_embed(payload, self._bounds(context, reservation), per_token=True)


class SimilarityEndpoint(EmbedEndpoint):
    """Endpoint of `POST /similarity`."""

    route = "POST /similarity"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> Decoded[EmbedRequest]:
        return decode_similarity(payload, self._bounds(context, reservation))

    async def _render(
        self,
        decoded: Decoded[EmbedRequest],  # noqa: ARG002
        result: Computed[EmbedResult],
        on_thread: RunOnThread,  # noqa: ARG002  # a number for each text is little
    ) -> Sequence[bytes]:
        cosines = np.ascontiguousarray(similarity_of(result.result.vectors))
        return [orjson.dumps(cosines, option=orjson.OPT_SERIALIZE_NUMPY)]


class PredictEndpoint(TeiEndpoint[ClassifyRequest, ClassifyResult]):
    """Endpoint of `POST /predict`."""

    route = "POST /predict"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> Decoded[ClassifyRequest]:
        return decode_predict(payload, self._bounds(context, reservation))

    async def _call(self, request: ClassifyRequest, decoded: Decoded[ClassifyRequest]) -> ClassifyResult:
        truncation = decoded.truncation
        if truncation is None:
            truncation = Truncation.LONGEST_FIRST if self._service.truncates(request.model) else Truncation.NONE
        return await self._service.predict(replace(request, truncation=truncation))

    async def _render(
        self, decoded: Decoded[ClassifyRequest], result: Computed[ClassifyResult], on_thread: RunOnThread
    ) -> Sequence[bytes]:
        found = result.result
        parts = prediction_pieces(found, raw=decoded.raw_scores, single=decoded.single)
        return await in_chunks(parts, on_thread, large=found.items > PIECE_ITEMS)


class TokenizeEndpoint(TeiEndpoint[TokenizeRequest, TokenizeResult]):
    """Endpoint of `POST /tokenize`."""

    route = "POST /tokenize"

    def _convert(self, payload: object, context: RequestContext, reservation: Reservation) -> Decoded[TokenizeRequest]:
        return decode_tokenize(payload, self._bounds(context, reservation))

    async def _call(self, request: TokenizeRequest, decoded: Decoded[TokenizeRequest]) -> TokenizeResult:  # noqa: ARG002
        return await self._service.tokenize(request)

    async def _render(
        self,
        decoded: Decoded[TokenizeRequest],  # noqa: ARG002
        result: Computed[TokenizeResult],
        on_thread: RunOnThread,
    ) -> Sequence[bytes]:
        found = result.result
        return await in_chunks(token_pieces(found), on_thread, large=found.tokens > PIECE_ITEMS)


class DecodeEndpoint(TeiEndpoint[DetokenizeRequest, DetokenizeResult]):
    """Endpoint of `POST /decode`."""

    route = "POST /decode"

    def _convert(
        self, payload: object, context: RequestContext, reservation: Reservation
    ) -> Decoded[DetokenizeRequest]:
        return decode_ids(payload, self._bounds(context, reservation))

    async def _call(self, request: DetokenizeRequest, decoded: Decoded[DetokenizeRequest]) -> DetokenizeResult:  # noqa: ARG002
        return await self._service.detokenize(request)

    async def _render(
        self,
        decoded: Decoded[DetokenizeRequest],  # noqa: ARG002
        result: Computed[DetokenizeResult],
        on_thread: RunOnThread,
    ) -> Sequence[bytes]:
        found = result.result
        parts = (piece for piece in (orjson.dumps(found.texts),))
        return await in_chunks(parts, on_thread, large=found.tokens > PIECE_ITEMS)


class DefaultEndpoint:
    """Endpoint of `POST /`: the route that fits the model's kind.

    Without a route for rerankers, they are classifiers. Errors are those of `/embed` if the model is not known.
    """

    def __init__(
        self, service: EncodeService, tei_model: str, embed: Serve, predict: Serve, rerank: Serve | None = None
    ) -> None:
        self._service = service
        self._model = tei_model
        self._by_kind: Mapping[str, Serve] = {
            "embedding": embed,
            "classifier": predict,
            "reranker": rerank or predict,
        }

    async def serve(self, request: Request) -> Response:
        """Serves one request; raises a `ServiceError`."""
        try:
            kind = kind_of(self._service.model(model_name(self._service, self._model)))
        except ServiceError:
            kind = "embedding"
        return await self._by_kind[kind](request)


def count_characters(sequences: TextInput | TokenInput) -> int:
    """Counts the characters of texts, without prompts, or the ids."""
    if isinstance(sequences, TokenInput):
        return sum(map(len, sequences.token_ids))
    return sum(sum(map(len, (text,) if isinstance(text, str) else text)) for text in sequences.texts)
