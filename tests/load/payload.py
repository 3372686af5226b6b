"""One request in both transports' words, and whether an answer to it is the stand-in's, number by number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import from_integers, to_floats
from electra_serve.tensors import Float32Array, Output
from tests.integration.answers import OUTPUTS
from tests.load.known_answer import known_answer


@dataclass(frozen=True, slots=True)
class Payload:
    """Sequences of unmasked ids.

    Attributes:
        rows: The ids of each.
        outputs: What to ask for.
        known: Whether the right answer is known: the stand-in's is.
    """

    rows: tuple[tuple[int, ...], ...]
    outputs: tuple[Output, ...] = (Output.MEAN,)
    known: bool = True

    def rest(self) -> bytes:
        """As a JSON body."""
        names = [output.value for output in self.outputs]
        return json.dumps({"token_ids": self.rows, "outputs": names}, separators=(",", ":")).encode()

    def message(self, request_id: str = "") -> pb.EncodeRequest:
        """As a gRPC message."""
        return pb.EncodeRequest(
            request_id=request_id,
            tokens=pb.TokenInput(token_ids=[from_integers(np.array(row, np.int32)) for row in self.rows]),
            outputs=[OUTPUTS[output.value] for output in self.outputs],
        )

    def is_answered_by_rest(self, body: bytes) -> bool:
        """Whether a JSON answer is right."""
        answer = json.loads(body)
        return all(self._is_right(output, answer.get(output.value, ())) for output in self.outputs)

    def is_answered_by_grpc(self, answer: pb.EncodeResponse) -> bool:
        """Whether a gRPC answer is right."""
        return all(self._is_right(output, _grpc_rows(answer, output)) for output in self.outputs)

    def _is_right(self, output: Output, rows: Sequence[object] | Float32Array) -> bool:
        return len(rows) == len(self.rows) and all(
            not self.known or np.array_equal(np.asarray(got, np.float32), known_answer(output, ids))
            for got, ids in zip(rows, self.rows, strict=True)
        )


def _grpc_rows(answer: pb.EncodeResponse, output: Output) -> Sequence[object] | Float32Array:
    if output is Output.SEQUENCE:
        return [to_floats(tensor) for tensor in answer.sequence_output]
    tensor: pb.Tensor = getattr(answer, output.value)
    return to_floats(tensor)


def numbered(number: int, length: int, *, known: bool = True) -> Payload:
    """A request of one row that no other number up to 16 million has; the first three ids are the number.

    Example:
        >>> numbered(5, 4).rows == numbered(6, 4).rows
        False
    """
    return Payload((number_head(number) + (7,) * (length - 3),), known=known)


def number_head(number: int) -> tuple[int, int, int]:
    """The first three ids of `numbered`: what the stand-in's record knows the row by.

    Example:
        >>> number_head(0), number_head(1000)
        ((10, 10, 10), (10, 13, 242))
    """
    return 10 + number // 256**2, 10 + number // 256 % 256, 10 + number % 256
