"""The four clients of tritonclient behind one interface."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import np_to_triton_dtype

from tests.conformance_clients.served import KEY, Served
from tests.conformance_oip.samples import IDS, Array, rectangle


def authorized() -> dict[str, str]:
    """Returns headers with the key, new ones: the clients add some of a request to the dictionary that they get."""
    return {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True, slots=True)
class Client:
    """One of tritonclient's modules.

    Attributes:
        name: Name in tests.
        tensors: Module of its tensors.
        module: Module of its client.
    """

    name: str
    tensors: ModuleType
    module: ModuleType

    @property
    def is_http(self) -> bool:
        """It uses REST."""
        return self.name.startswith("http")

    @property
    def is_async(self) -> bool:
        """Its methods are coroutines."""
        return self.name.endswith("aio")

    def address(self, served: Served) -> str:
        """Returns the server as its constructor takes it."""
        return served.url.removeprefix("http://") if self.is_http else served.target

    def call(self, served: Served, method: str, *args: Any, **options: Any) -> Any:
        """Calls a method of a new client, with the key unless `headers` are given."""
        options.setdefault("headers", authorized())
        if self.is_async:
            return asyncio.run(self._await(served, method, *args, **options))
        with self.module.InferenceServerClient(self.address(served)) as client:
            return getattr(client, method)(*args, **options)

    async def _await(self, served: Served, method: str, *args: Any, **options: Any) -> Any:
        async with self.module.InferenceServerClient(self.address(served)) as client:
            return await getattr(client, method)(*args, **options)

    def infer(self, served: Served, model: str, inputs: Mapping[str, Array], **options: Any) -> Any:
        """Infers from arrays; `outputs` are names."""
        if "outputs" in options:
            options["outputs"] = [self.output(name) for name in options["outputs"]]
        return self.call(served, "infer", model, [self.input(*pair) for pair in inputs.items()], **options)

    def input(self, name: str, array: Array, datatype: str = "", **options: Any) -> Any:
        """Makes an input tensor."""
        tensor = self.tensors.InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
        return tensor.set_data_from_numpy(array, **options)

    def output(self, name: str, **options: Any) -> Any:
        """Makes a requested output."""
        return self.tensors.InferRequestedOutput(name, **options)

    def metadata(self, served: Served, method: str, *args: Any) -> Any:
        """Calls a method that describes something; returns it as JSON has it."""
        return self.call(served, method, *args, **({} if self.is_http else {"as_json": True}))

    def status(self, http: int, grpc: str) -> str:
        """Returns the status of its exceptions."""
        return str(http) if self.is_http else f"StatusCode.{grpc}"


CLIENTS: Final[Sequence[Client]] = (
    Client("http", tritonclient.http, tritonclient.http),
    Client("http.aio", tritonclient.http, tritonclient.http.aio),
    Client("grpc", tritonclient.grpc, tritonclient.grpc),
    Client("grpc.aio", tritonclient.grpc, tritonclient.grpc.aio),
)
HTTP: Final = CLIENTS[:2]
GRPC: Final = CLIENTS[2:]


def id_of(result: Any) -> str:
    """Returns the id of a response."""
    response = result.get_response()
    return str(response["id"] if isinstance(response, dict) else response.id)


def ids(dtype: Any = np.int64) -> dict[str, Array]:
    """The ids that all tests have, padded but not masked."""
    return {"token_ids": rectangle(IDS, dtype)}
