"""Callers of a model that is replaced under them: each answer must be one version's, whole.

They know what each version answers, in all outputs that they ask for. One that is neither version's in all its rows, or
that is an error, is told.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import httpx
import numpy as np

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.proto.tensors import from_integers, to_floats
from electra_serve.tensors import Float32Array
from tests.integration.answers import random_rows
from tests.integration.load import CallerThreads

TIMEOUT_S: Final = 60.0
TOLERANCE: Final = 1e-4
OUTPUTS: Final = {"mean_output": pb.OUTPUT_MEAN, "cls_output": pb.OUTPUT_CLS}
LONG_TEXT: Final = "the cat sat on the mat and looked at the moon " * 60
"""Tokenized on a thread: by then the model may be another one."""


@dataclass(frozen=True, slots=True)
class Query:
    """Ids or texts."""

    token_ids: Sequence[Sequence[int]] = ()
    texts: Sequence[str] = ()

    def over_rest(self, client: httpx.Client, model: str) -> Float32Array:
        """Its answer, (outputs, rows, H)."""
        given: dict[str, Any] = {"text": self.texts} if self.texts else {"token_ids": self.token_ids}
        body = {**given, "model": model, "outputs": list(OUTPUTS), "truncate": True}
        response = client.post("/v1/encode", json=body)
        if response.status_code != 200:
            raise Refused(response.text)
        answer = response.json()
        return np.array([answer[name] for name in OUTPUTS], np.float32)

    def over_grpc(self, stub: EncoderServiceStub, model: str) -> Float32Array:
        """Its answer, (outputs, rows, H)."""
        request = pb.EncodeRequest(model=model, outputs=OUTPUTS.values(), truncate=True)
        if self.texts:
            request.text.texts.extend(pb.Text(first=text) for text in self.texts)
        else:
            request.tokens.token_ids.extend(from_integers(np.array(row, np.int32)) for row in self.token_ids)
        try:
            answer = stub.Encode(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise Refused(str(error)) from error
        return np.array([to_floats(getattr(answer, name)) for name in OUTPUTS], np.float32)


class Refused(Exception):
    """A query was not answered."""


QUERIES: Final = (
    Query(token_ids=random_rows([5, 40, 12], seed=1)),
    Query(token_ids=random_rows([128], seed=2)),
    Query(texts=("Hello, world!", "What is it worth?")),
    Query(texts=(LONG_TEXT,)),
)

Expected = Mapping[str, Sequence[Float32Array]]
"""What each version answers to each of `QUERIES`."""


def version_of(answer: Float32Array, query: int, expected: Expected) -> str:
    """The version whose answer it is, or `neither`."""
    for version, answers in expected.items():
        if answer.shape == answers[query].shape and np.allclose(answer, answers[query], rtol=0, atol=TOLERANCE):
            return version
    return "neither"


class Authenticator(CallerThreads):
    """Ask again as soon as they are answered, on both transports, until they are left.

    Args:
        url: Where REST is.
        target: Where gRPC is.
        model: What they ask.
        expected: What its versions answer.
        callers: On each transport.

    Attributes:
        answers: How often each version has answered on each transport.
        seconds: How long each answer took.
        errors: What else came.
    """

    def __init__(self, url: str, target: str, *, model: str, expected: Expected, callers: int = 2) -> None:
        super().__init__(callers)
        self._url = url
        self._target = target
        self._model = model
        self._expected = expected
        self.answers: Counter[tuple[str, str]] = Counter()
        self.errors: list[str] = []
        self.seconds: list[float] = []

    @property
    def answered(self) -> int:
        """How many queries have been answered."""
        with self._lock:
            return sum(self.answers.values())

    def _call_rest(self, caller: int) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:
            self._repeat("rest", lambda query: query.over_rest(client, self._model))

    def _call_grpc(self, caller: int) -> None:
        with grpc.insecure_channel(self._target) as channel:
            stub = EncoderServiceStub(channel)
            self._repeat("grpc", lambda query: query.over_grpc(stub, self._model))

    def _repeat(self, transport: str, ask: Callable[[Query], Float32Array]) -> None:
        number = 0
        while not self._stopping.is_set():
            query, asked_at = number % len(QUERIES), time.monotonic()
            try:
                version = version_of(ask(QUERIES[query]), query, self._expected)
            except (Refused, httpx.TransportError) as error:
                with self._lock:
                    self.errors.append(f"{transport}: {error!r:.300}")
                return
            with self._lock:
                self.answers[transport, version] += 1
                self.seconds.append(time.monotonic() - asked_at)
            number += 1
