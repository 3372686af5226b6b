"""Callers who ask again as soon as they are answered, on both transports, and remember what came of each request."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Self, cast

import grpc
import httpx
import numpy as np

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.proto.tensors import from_integers

CALLERS: Final = 3
"""On each transport."""
LENGTH: Final = 48
TIMEOUT_S: Final = 60.0


class CallerThreads(ABC):
    """Threads that call for as long as the context lasts, as many on one transport as on the other.

    Args:
        callers: On each transport.
    """

    def __init__(self, callers: int) -> None:
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=call, args=(index,), name=f"caller-{index}")
            for call in (self._call_rest, self._call_grpc)
            for index in range(callers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def _call_rest(self, caller: int) -> None:
        """Calls until `_stopping` is set."""

    @abstractmethod
    def _call_grpc(self, caller: int) -> None:
        """Likewise."""


class Load(CallerThreads):
    """Runs until it is left, or until no caller is answered any more.

    Args:
        url: Where REST is.
        target: Where gRPC is.
        model: Which model to ask; None: the only one.
    """

    def __init__(self, url: str, target: str, model: str | None = None) -> None:
        super().__init__(CALLERS)
        self._model = model
        self._url = url
        self._target = target
        self._outcomes: dict[str, str] = {}

    def answered(self, transport: str) -> int:
        """How many requests have been answered."""
        return sum(name.startswith(transport) for name in self.names("ok"))

    def names(self, outcome: str) -> set[str]:
        """The ids of the requests that came to `outcome`."""
        with self._lock:
            return {name for name, came_to in self._outcomes.items() if came_to == outcome}

    def outcomes(self) -> set[str]:
        """What requests came to: `ok`, an error's slug, or `unreachable`."""
        with self._lock:
            return set(self._outcomes.values())

    def _call_rest(self, caller: int) -> None:
        body = {"token_ids": [[caller + 1] * LENGTH], "outputs": ["mean_output"]}
        body |= {} if self._model is None else {"model": self._model}
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:

            def ask(name: str) -> str:
                try:
                    response = client.post("/v1/encode", json=body, headers={"x-request-id": name})
                except httpx.TransportError:
                    return "unreachable"
                return "ok" if response.status_code == 200 else str(response.json()["code"])

            self._repeat(f"rest-{caller}", ask)

    def _call_grpc(self, caller: int) -> None:
        tensor = from_integers(np.full(LENGTH, caller + 1, np.int32))
        with grpc.insecure_channel(self._target) as channel:
            stub = EncoderServiceStub(channel)

            def ask(name: str) -> str:
                tokens = pb.TokenInput(token_ids=[tensor])
                request = pb.EncodeRequest(
                    request_id=name, tokens=tokens, outputs=[pb.OUTPUT_MEAN], model=self._model or ""
                )
                try:
                    stub.Encode(request, timeout=TIMEOUT_S)
                except grpc.RpcError as error:
                    metadata = dict(cast("grpc.Call", error).trailing_metadata() or ())
                    unreachable = error.code() is grpc.StatusCode.UNAVAILABLE
                    return str(metadata.get("electra-error-code", "unreachable" if unreachable else error.code().name))
                return "ok"

            self._repeat(f"grpc-{caller}", ask)

    def _repeat(self, prefix: str, ask: Callable[[str], str]) -> None:
        """Asks until it is refused."""
        number = 0
        outcome = "ok"
        while outcome == "ok" and not self._stopping.is_set():
            name = f"{prefix}-{number}"
            outcome = ask(name)
            with self._lock:
                self._outcomes[name] = outcome
            number += 1
