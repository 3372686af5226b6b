"""Outcome of a request, in the same form for both transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from electra_serve.tensors import POSITION_OUTPUTS, Float32Array, Output

HTTP_STATUS: Final[Mapping[str, int | str]] = MappingProxyType(
    {
        "malformed_request": 400,
        "unsupported_media_type": 415,
        "invalid_input": 422,
        "payload_too_large": 413,
        "unauthenticated": 401,
        "model_not_found": 404,
        "model_not_ready": 503,
        "shutting_down": 503,
        "overloaded": 429,
        "deadline_exceeded": 504,
        "engine_failure": 500,
        "internal": 500,
    }
)
GRPC_STATUS: Final[Mapping[str, int | str]] = MappingProxyType(
    {
        "malformed_request": "INVALID_ARGUMENT",
        "invalid_input": "INVALID_ARGUMENT",
        "payload_too_large": "RESOURCE_EXHAUSTED",
        "unauthenticated": "UNAUTHENTICATED",
        "model_not_found": "NOT_FOUND",
        "model_not_ready": "UNAVAILABLE",
        "shutting_down": "UNAVAILABLE",
        "overloaded": "RESOURCE_EXHAUSTED",
        "deadline_exceeded": "DEADLINE_EXCEEDED",
        "engine_failure": "INTERNAL",
        "internal": "INTERNAL",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Success:
    """A request with a response.

    Attributes:
        model: Model that computed it.
        outputs: For each requested output, one array per sequence.
        sequences: Number of sequences, as reported by the response.
        tokens: Unmasked positions.
        truncated: For each sequence, true if it was cut; None if the protocol does not say so.
        padded: True if outputs of positions are padded with zeros to the longest sequence.
    """

    model: str
    outputs: Mapping[Output, list[Float32Array]]
    sequences: int
    tokens: int
    truncated: list[bool] | None
    padded: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request with an error.

    Attributes:
        code: Code of the error.
        status: The protocol's own status; None in a stream, which has none for a single request.
        message: Text for people.
        field: Field at fault.
        retry_after_s: Delay of a retry.
        request_id: Id in the log; None if gRPC itself rejected the request, or a stream's had no valid one.
        raw: Everything that was received, to search for text that must not be in it.
    """

    code: str
    status: int | str | None
    message: str
    field: str | None
    retry_after_s: float | None
    request_id: str | None
    raw: bytes


Outcome = Success | Rejection


def succeeded(outcome: Outcome) -> Success:
    """Returns the response; fails if there is none."""
    assert isinstance(outcome, Success), outcome
    return outcome


def rejected(outcome: Outcome) -> Rejection:
    """Returns the rejection; fails if there is none."""
    assert isinstance(outcome, Rejection), outcome
    return outcome


def assert_same(
    got: Mapping[Output, list[Float32Array]],
    expected: Mapping[Output, list[Float32Array]],
    *,
    padded: bool = False,
) -> None:
    """Fails unless both hold the same outputs of the same rows, number for number; `got` may be padded with zeros."""
    assert got.keys() == expected.keys()
    for output, rows in expected.items():
        assert len(got[output]) == len(rows)
        for ours, theirs in zip(got[output], rows, strict=True):
            if padded and output in POSITION_OUTPUTS:
                np.testing.assert_array_equal(ours[len(theirs) :], 0, err_msg=output)
                ours = ours[: len(theirs)]
            np.testing.assert_array_equal(ours, theirs, err_msg=output)
