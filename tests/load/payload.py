"""One request for each transport, and the check that a response has the stand-in's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from time import monotonic

import numpy as np

from benchmarks.load.clients import OK, WRONG
from benchmarks.stand_in.answers import known_answer
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers, to_floats
from electra_serve.tensors import Float32Array, Output
from tests.integration.responses import OUTPUTS


@dataclass(frozen=True, slots=True)
class Payload:
    """Sequences of unmasked ids.

    Attributes:
        rows: Ids of each sequence.
        outputs: Requested outputs.
        known: The correct outputs are known, as the stand-in's are.
        request_id: Id of the request; "" for none.
        model: Name of the model; "" for the only one.
    """

    rows: tuple[tuple[int, ...], ...]
    outputs: tuple[Output, ...] = (Output.MEAN,)
    known: bool = True
    request_id: str = ""
    model: str = ""

    def rest(self) -> bytes:
        """See `Request.rest`."""
        names = [output.value for output in self.outputs]
        body = {"token_ids": self.rows, "outputs": names} | ({"model": self.model} if self.model else {})
        return json.dumps(body, separators=(",", ":")).encode()

    def grpc(self) -> bytes:
        """See `Request.grpc`."""
        return self.message().SerializeToString()

    def message(self, request_id: str = "") -> pb.EncodeRequest:
        """Makes the message."""
        return pb.EncodeRequest(
            request_id=request_id or self.request_id,
            model=self.model,
            tokens=pb.TokenInput(token_ids=[from_integers(np.array(row, np.int32)) for row in self.rows]),
            outputs=[OUTPUTS[output.value] for output in self.outputs],
        )

    def rest_code(self, body: bytes) -> str:
        """See `Request.rest_code`."""
        response = json.loads(body)
        return OK if all(self._is_right(name, response.get(name.value, ())) for name in self.outputs) else WRONG

    def grpc_code(self, message: bytes) -> str:
        """See `Request.grpc_code`."""
        response = pb.EncodeResponse.FromString(message)
        return OK if all(self._is_right(name, _grpc_rows(response, name)) for name in self.outputs) else WRONG

    def _is_right(self, output: Output, rows: Sequence[object] | Float32Array) -> bool:
        return len(rows) == len(self.rows) and all(
            not self.known or np.array_equal(np.asarray(got, np.float32), known_answer(output, ids))
            for got, ids in zip(rows, self.rows, strict=True)
        )


def _grpc_rows(response: pb.EncodeResponse, output: Output) -> Sequence[object] | Float32Array:
    if output is Output.SEQUENCE:
        return [to_floats(tensor) for tensor in response.sequence_output]
    tensor: pb.Tensor = getattr(response, output.value)
    return to_floats(tensor)


def numbered(number: int, length: int, *, known: bool = True, named: bool = False) -> Payload:
    """Makes a request of one row that differs for each number up to 16 million; its first three ids are the number.

    Example:
        >>> numbered(5, 4).rows == numbered(6, 4).rows
        False
    """
    name = f"request-{number}" if named else ""
    return Payload((number_head(number) + (7,) * (length - 3),), known=known, request_id=name)


def number_head(number: int) -> tuple[int, int, int]:
    """Returns the first three ids of `numbered`, by which the stand-in's record knows the row.

    Example:
        >>> number_head(0), number_head(1000)
        ((10, 10, 10), (10, 13, 242))
    """
    return 10 + number // 256**2, 10 + number // 256 % 256, 10 + number % 256


def numbered_until(until_s: float, length: int, *, known: bool = True) -> Iterator[Payload]:
    """Yields numbered requests until a time on the machine's monotonic clock."""
    return takewhile(lambda _: monotonic() < until_s, (numbered(number, length, known=known) for number in count()))


def named_requests(length: int) -> Iterator[Payload]:
    """Yields requests without end, each with an id of its own, whose outputs are not checked."""
    return (numbered(number, length, known=False, named=True) for number in count())
