"""Converts the JSON of rerank routes to a `RerankRequest`: the members of Cohere, Jina, vLLM and TEI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from electra_serve.api.rest.decode import BYTES_PER_VALUE, transit_of
from electra_serve.api.rest.members import Members
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from electra_serve.serving.request_context import RequestContext
from electra_serve.serving.rerank import RerankRequest
from electra_serve.serving.transit_budget import Reservation
from electra_serve.tensors import Truncation

Dialect = Literal["rerank", "tei", "score"]

_DIRECTIONS: Final = {"right": Truncation.ONLY_SECOND, "left": Truncation.LEFT}


@dataclass(frozen=True, slots=True)
class DecodedRerank:
    """Request, and the form of its response."""

    request: RerankRequest
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class RerankDecoder:
    """Limits of one request, and its context."""

    context: RequestContext
    max_documents: int
    max_answer_bytes: int
    reservation: Reservation | None = None

    def rerank(self, payload: object) -> DecodedRerank:
        """Converts a body with `query` and `documents`.

        Raises:
            MalformedRequest: A member has a wrong type, or a required one is missing.
            InvalidInput: A value is not allowed.
            PayloadTooLarge: There are too many documents.
        """
        members = Members(payload)
        return self._decoded(
            "rerank",
            RerankRequest(
                query=_required_string(members, "query"),
                documents=self._documents(members.required("documents"), "documents"),
                model=members.model(),
                top_n=members.count("top_n"),
                raw_scores=_raw_scores(members),
                returns_documents=members.flag("return_documents", default=False),
            ),
        )

    def tei(self, payload: object, model: str | None = None) -> DecodedRerank:
        """Converts a body with `query` and `texts`; `model` serves those that name none. Raises as `rerank`."""
        members = Members(payload)
        return self._decoded(
            "tei",
            RerankRequest(
                query=_required_string(members, "query"),
                documents=self._strings(members.required("texts"), "texts"),
                model=members.model() or model,
                raw_scores=members.flag("raw_scores", default=False),
                truncation=_truncation(members),
                returns_documents=members.flag("return_text", default=False),
                fields=("query", "texts"),
            ),
        )

    def score(self, payload: object) -> DecodedRerank:
        """Converts a body with `text_1` and `text_2`: one text for many, or pairs of texts. Raises as `rerank`."""
        members = Members(payload)
        first = self._strings(members.required("text_1"), "text_1")
        second = self._strings(members.required("text_2"), "text_2")
        if len(first) not in {1, len(second)}:
            raise InvalidInput(
                f"text_1 must have one text, or as many as text_2, {len(second)}; got {len(first)}", field="text_1"
            )
        return self._decoded(
            "score",
            RerankRequest(
                query=first[0] if len(first) == 1 else "",
                queries=None if len(first) == 1 else first,
                documents=second,
                model=members.model(),
                raw_scores=_raw_scores(members),
                fields=("text_1", "text_2"),
            ),
        )

    def _decoded(self, dialect: Dialect, request: RerankRequest) -> DecodedRerank:
        limited = replace(
            request,
            context=self.context,
            max_values=int(self.max_answer_bytes / BYTES_PER_VALUE["float"]),
            transit=transit_of(self.reservation, "float"),
        )
        return DecodedRerank(limited, dialect)

    def _documents(self, values: object, field: str) -> Sequence[str]:
        """Converts a list of strings and of objects with a `text`."""
        values = self._list(values, field)
        if set(map(type, values)) <= {str}:
            return values  # type: ignore[return-value]  # checked in one pass
        return tuple(_text(value, f"{field}[{index}]") for index, value in enumerate(values))

    def _strings(self, values: object, field: str) -> Sequence[str]:
        """Converts a string or a list of strings."""
        if isinstance(values, str):
            return (values,)
        values = self._list(values, field)
        if not set(map(type, values)) <= {str}:
            index = next(index for index, value in enumerate(values) if not isinstance(value, str))
            raise MalformedRequest(f"{field} must have strings only; got another type", field=f"{field}[{index}]")
        return values  # type: ignore[return-value]  # checked in one pass

    def _list(self, values: object, field: str) -> list[object]:
        if not isinstance(values, list):
            raise MalformedRequest(f"{field} must be a list; got another type", field=field)
        if not values:
            raise InvalidInput(f"{field} must have at least one text; got none", field=field)
        if len(values) > self.max_documents:
            raise PayloadTooLarge(
                f"{field} must have at most {self.max_documents} texts; got {len(values)}", field=field
            )
        return values


def is_tei(payload: object) -> bool:
    """Returns True for a body in TEI's dialect.

    Example:
        >>> is_tei({"query": "q", "texts": ["a"]}), is_tei({"query": "q", "documents": ["a"], "texts": ["a"]})
        (True, False)
    """
    return isinstance(payload, Mapping) and payload.get("texts") is not None and payload.get("documents") is None


def _required_string(members: Members, name: str) -> str:
    members.required(name)
    return members.string(name) or ""


def _raw_scores(members: Members) -> bool:
    """Reads `raw_scores`, and vLLM's names of the opposite."""
    activation = members.flag("activation", default=True) and members.flag("use_activation", default=True)
    return members.flag("raw_scores", default=not activation)


def _text(value: object, field: str) -> str:
    text = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        raise MalformedRequest(
            "a document must be a string, or an object with the string text; got another type", field=field
        )
    return text


def _truncation(members: Members) -> Truncation:
    """Reads `truncate` and `truncation_direction`; without `truncate`, pairs are truncated."""
    direction = (members.string("truncation_direction") or "right").lower()
    if direction not in _DIRECTIONS:
        raise InvalidInput("truncation_direction must be left or right; got another", field="truncation_direction")
    return _DIRECTIONS[direction] if members.flag("truncate", default=True) else Truncation.NONE
