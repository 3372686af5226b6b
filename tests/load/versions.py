"""Requests to a model that is replaced under load: each response must be one version's in all its rows and outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Final, TypeAlias

import numpy as np

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers, to_floats
from electra_serve.tensors import Float32Array
from tests.integration.responses import random_rows

TOLERANCE: Final = 1e-4
NEITHER: Final = "neither"
OUTPUTS: Final = {"mean_output": pb.OUTPUT_MEAN, "cls_output": pb.OUTPUT_CLS}
LONG_TEXT: Final = "the cat sat on the mat and looked at the moon " * 60
"""Tokenized on a thread, so that the model may be replaced meanwhile."""

Expected: TypeAlias = Mapping[str, Float32Array]
"""Outputs of each version, (outputs, rows, H)."""


@dataclass(frozen=True, slots=True)
class Query:
    """Ids or texts; the code of a response is the version whose outputs it has.

    Attributes:
        token_ids: Ids of each sequence.
        texts: Texts, if there are no ids.
        model: Name of the model.
        expected: Outputs of each version.
        request_id: Not sent.
    """

    token_ids: Sequence[Sequence[int]] = ()
    texts: Sequence[str] = ()
    model: str = ""
    expected: Expected | None = None
    request_id: str = ""

    def rest(self) -> bytes:
        """See `Request.rest`."""
        given: dict[str, Any] = {"text": self.texts} if self.texts else {"token_ids": self.token_ids}
        return json.dumps({**given, "model": self.model, "outputs": list(OUTPUTS), "truncate": True}).encode()

    def grpc(self) -> bytes:
        """See `Request.grpc`."""
        request = pb.EncodeRequest(model=self.model, outputs=OUTPUTS.values(), truncate=True)
        if self.texts:
            request.text.texts.extend(pb.Text(first=text) for text in self.texts)
        else:
            request.tokens.token_ids.extend(from_integers(np.array(row, np.int32)) for row in self.token_ids)
        return request.SerializeToString()

    def rest_code(self, body: bytes) -> str:
        """See `Request.rest_code`."""
        return self._version(rest_outputs(body))

    def grpc_code(self, message: bytes) -> str:
        """See `Request.grpc_code`."""
        return self._version(grpc_outputs(message))

    def _version(self, outputs: Float32Array) -> str:
        return version_of(outputs, self.expected or {})


def rest_outputs(body: bytes) -> Float32Array:
    """Reads the outputs of a JSON response, (outputs, rows, H)."""
    response = json.loads(body)
    return np.array([response[name] for name in OUTPUTS], np.float32)


def grpc_outputs(message: bytes) -> Float32Array:
    """Reads the outputs of a gRPC response, (outputs, rows, H)."""
    response = pb.EncodeResponse.FromString(message)
    return np.array([to_floats(getattr(response, name)) for name in OUTPUTS], np.float32)


def version_of(outputs: Float32Array, expected: Expected) -> str:
    """Returns the version with these outputs, or `NEITHER`."""
    for version, known in expected.items():
        if outputs.shape == known.shape and np.allclose(outputs, known, rtol=0, atol=TOLERANCE):
            return version
    return NEITHER


QUERIES: Final = (
    Query(token_ids=random_rows([5, 40, 12], seed=1)),
    Query(token_ids=random_rows([128], seed=2)),
    Query(texts=("Hello, world!", "What is it worth?")),
    Query(texts=(LONG_TEXT,)),
)


def queries_to(model: str, expected: Mapping[str, Sequence[Float32Array]]) -> Iterator[Query]:
    """Yields `QUERIES` to a model without end, with the outputs that each version has for each of them."""
    known = [{version: outputs[number] for version, outputs in expected.items()} for number in range(len(QUERIES))]
    return cycle(replace(query, model=model, expected=each) for query, each in zip(QUERIES, known, strict=True))
