"""Adds the routes of Text Embeddings Inference to the application."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI

from electra_serve.api.rest.body import JSON_MEDIA_TYPE
from electra_serve.api.rest.error_formats import add_error_formats
from electra_serve.api.rest.openapi import (
    JsonObject,
    Responses,
    compute_request,
    json_response_of,
    schema_of,
)
from electra_serve.api.rest.tei import schemas
from electra_serve.api.rest.tei.endpoint import (
    DecodeEndpoint,
    DefaultEndpoint,
    EmbedAllEndpoint,
    EmbedEndpoint,
    PredictEndpoint,
    SimilarityEndpoint,
    TokenizeEndpoint,
)
from electra_serve.api.rest.tei.errors import as_tei_error
from electra_serve.api.rest.tei.info import InfoEndpoints

SCHEMAS: Final = (
    schemas.TeiEmbedBody,
    schemas.TeiEmbedAllBody,
    schemas.TeiVectors,
    schemas.TeiTokenVectors,
    schemas.TeiPredictBody,
    schemas.TeiPredictions,
    schemas.TeiSimilarityBody,
    schemas.TeiSimilarities,
    schemas.TeiTokenizeBody,
    schemas.TeiTokens,
    schemas.TeiDecodeBody,
    schemas.TeiTexts,
    schemas.TeiInfo,
    schemas.TeiErrorAnswer,
)
PATHS: Final = (
    "/embed",
    "/embed_all",
    "/predict",
    "/similarity",
    "/tokenize",
    "/decode",
    "/info",
    "/health",
    "/",
)
_FAILED: Final[Responses] = {"default": json_response_of("A failed request.", schemas.TeiErrorAnswer)[200]}


@dataclass(frozen=True, slots=True)
class TeiEndpoints:
    """Endpoints of all routes."""

    embed: EmbedEndpoint
    embed_all: EmbedAllEndpoint
    predict: PredictEndpoint
    similarity: SimilarityEndpoint
    tokenize: TokenizeEndpoint
    decode: DecodeEndpoint
    default: DefaultEndpoint
    info: InfoEndpoints


@dataclass(frozen=True, slots=True)
class _Route:
    """Documentation of a route that computes."""

    path: str
    summary: str
    description: str
    body: type
    answer: type
    example: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the operation."""
        return f"tei_{self.path[1:] or 'default'}"


_TEXTS: Final = {"inputs": ["a text", "another"]}
_ROUTES: Final[Mapping[str, _Route]] = MappingProxyType(
    {
        "embed": _Route(
            "/embed",
            "Embed texts, as TEI does",
            "Vector of each input, of unit length by default. Long inputs are truncated by default.",
            schemas.TeiEmbedBody,
            schemas.TeiVectors,
            _TEXTS,
        ),
        "embed_all": _Route(
            "/embed_all",
            "Embed each token",
            "Last hidden states of the tokens of each input.",
            schemas.TeiEmbedAllBody,
            schemas.TeiTokenVectors,
            _TEXTS,
        ),
        "predict": _Route(
            "/predict",
            "Classify texts, as TEI does",
            "Labels of each input: softmax of several labels, sigmoid of one.",
            schemas.TeiPredictBody,
            schemas.TeiPredictions,
            {"inputs": [["a text"], ["a text", "of a pair"]]},
        ),
        "similarity": _Route(
            "/similarity",
            "Compare texts, as TEI does",
            "Cosine of the embeddings of one text and of each other.",
            schemas.TeiSimilarityBody,
            schemas.TeiSimilarities,
            {"inputs": {"source_sentence": "a text", "sentences": ["another", "a third"]}},
        ),
        "tokenize": _Route(
            "/tokenize",
            "Tokenize texts, as TEI does",
            "Tokens of each text, by the model's own tokenizer. Nothing is truncated.",
            schemas.TeiTokenizeBody,
            schemas.TeiTokens,
            _TEXTS,
        ),
        "decode": _Route(
            "/decode",
            "Turn ids into texts, as TEI does",
            "Text of each list of ids, by the model's own tokenizer.",
            schemas.TeiDecodeBody,
            schemas.TeiTexts,
            {"ids": [[101, 3173, 200, 102]]},
        ),
        "default": _Route(
            "/",
            "Call the route that fits the model",
            "`/embed` for an encoder, `/predict` for a classifier, and reranking for a model with one label.",
            schemas.TeiEmbedBody,
            schemas.TeiVectors,
            _TEXTS,
        ),
    }
)


def add_tei(app: FastAPI, endpoints: TeiEndpoints) -> None:
    """Adds the routes, whose errors have TEI's form. `GET /` stays free."""
    add_error_formats(app, dict.fromkeys(PATHS, as_tei_error) | {"/decode": partial(as_tei_error, member="ids")})
    for name, route in _ROUTES.items():
        request = compute_request(route.body, {"example": {"value": route.example}})
        responses = json_response_of("The results.", route.answer) | _FAILED
        if name == "default":
            _document_others(request, responses)
        app.router.add_api_route(
            route.path,
            getattr(endpoints, name).serve,
            methods=["POST"],
            tags=["TEI"],
            name=route.name,
            summary=route.summary,
            description=route.description,
            response_model=None,
            responses=responses,
            openapi_extra=request,
        )
    add = partial(app.router.add_api_route, methods=["GET"], tags=["TEI"], response_model=None)
    add(
        "/info",
        endpoints.info.info,
        name="tei_info",
        summary="Describe the model, as TEI does",
        description="The model of these routes, and their limits.",
        responses=json_response_of("The model.", schemas.TeiInfo) | _FAILED,
    )
    add(
        "/health",
        endpoints.info.health,
        name="tei_health",
        summary="Are requests admitted?",
        description="As `/readyz`, with an empty body.",
        responses={200: {"description": "They are."}, **_FAILED},
    )


def _document_others(request: JsonObject, responses: Responses) -> None:
    """Adds the bodies of a classifier to those of an encoder."""
    body, answer = (part["content"][JSON_MEDIA_TYPE] for part in (request["requestBody"], responses[200]))
    body["schema"] = {"anyOf": [body["schema"], schema_of(schemas.TeiPredictBody)]}
    answer["schema"] = {"anyOf": [answer["schema"], schema_of(schemas.TeiPredictions)]}
