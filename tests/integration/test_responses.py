"""The real process returns the model's outputs, for any client, over any transport, next to any others."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
import numpy as np
import pytest

from electra_serve.client import AsyncElectraClient, AsyncGrpcElectraClient, ElectraClient, GrpcElectraClient
from electra_serve.client.base import SyncClient
from electra_serve.errors import InvalidInput
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.sources import resolve_preset
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.tensors import ENCODER_OUTPUTS
from tests.integration.process import ServiceProcess
from tests.integration.responses import (
    OUTPUTS,
    EncodedRow,
    Rows,
    assert_close,
    over_grpc,
    over_rest,
    random_rows,
)

BETWEEN_TRANSPORTS: Final = 1e-6
FROM_THE_MODEL: Final = 1e-5
BETWEEN_BATCHES: Final = 1e-5

TOKEN_IDS: Final = ((101, 7, 1999, 42, 102), (101, 7999, 102, 0, 0, 0), (101, 5, 6, 102))
SEGMENT_IDS: Final = ((0, 0, 1, 1, 1), (0, 0, 0, 0, 0, 0), (0, 1, 0, 1))
PADDING_MASK: Final = ((1, 1, 0, 1, 1), (1, 1, 1, 0, 0, 0), (1, 1, 1, 1))


@pytest.fixture(scope="session")
def expected() -> list[EncodedRow]:
    """Outputs of the model for the rows above, each computed alone, without any service."""
    from electra_serve.model.loading import load_backbone
    from tests.packing import compute_rows, pack_rows

    backbone = load_backbone(resolve_preset(DEMO_ID), dtype="float32", load_weights=True)
    rows: list[EncodedRow] = []
    for row in zip(TOKEN_IDS, SEGMENT_IDS, PADDING_MASK, strict=True):
        batch = pack_rows(*(np.array([values], np.int32) for values in row))
        outputs = compute_rows(backbone, batch, ENCODER_OUTPUTS)
        rows.append({output.value: array[0] for output, array in outputs.items()})
    return rows


def test_both_transports_return_the_model_s_outputs(
    rest: httpx.Client, stub: EncoderServiceStub, expected: list[EncodedRow]
) -> None:
    ours = over_rest(rest, token_ids=TOKEN_IDS, segment_ids=SEGMENT_IDS, padding_mask=PADDING_MASK)
    theirs = over_grpc(stub, TOKEN_IDS, segment_ids=SEGMENT_IDS, padding_mask=PADDING_MASK)
    assert_close(ours, theirs, BETWEEN_TRANSPORTS)
    assert_close(ours, expected, FROM_THE_MODEL)
    assert_close(theirs, expected, FROM_THE_MODEL)


def test_texts_are_encoded_as_their_ids(rest: httpx.Client, stub: EncoderServiceStub) -> None:
    texts = ["Alice was beginning to get very tired", ["of sitting by her sister", "on the bank"]]
    messages = [pb.Text(first=texts[0]), pb.Text(first=texts[1][0], second=texts[1][1])]  # type: ignore[arg-type]
    reply = stub.Encode(pb.EncodeRequest(text=pb.TextInput(texts=messages), outputs=[pb.OUTPUT_MEAN]), timeout=60)
    means = np.frombuffer(reply.mean_output.data, "<f4").reshape(2, -1)
    for row, mean in zip(over_rest(rest, text=texts, outputs=["mean_output"]), means, strict=True):
        np.testing.assert_allclose(row["mean_output"], mean, rtol=0, atol=BETWEEN_TRANSPORTS)


def test_a_row_does_not_depend_on_its_company(rest: httpx.Client, stub: EncoderServiceStub) -> None:
    rows = random_rows([5, 9, 17, 31, 64, 65, 120], seed=1)
    alone = [over_rest(rest, token_ids=[row])[0] for row in rows]
    assert_close(over_rest(rest, token_ids=rows), alone, BETWEEN_BATCHES)
    assert_close(over_grpc(stub, rows[::-1]), alone[::-1], BETWEEN_BATCHES)


def test_a_row_does_not_depend_on_who_else_asks(rest: httpx.Client, stub: EncoderServiceStub) -> None:
    rows = random_rows([3 + 5 * i for i in range(16)], seed=2)
    alone = [over_rest(rest, token_ids=[row])[0] for row in rows]

    def ask(index: int) -> EncodedRow:
        row = [rows[index]]
        return (over_rest(rest, token_ids=row) if index % 2 else over_grpc(stub, row))[0]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert_close(list(pool.map(ask, range(len(rows)))), alone, BETWEEN_BATCHES)


def test_a_stream_returns_the_same_as_single_requests(rest: httpx.Client, stub: EncoderServiceStub) -> None:
    rows = random_rows([4, 40, 8, 80], seed=3)
    alone = [over_rest(rest, token_ids=[row])[0]["mean_output"] for row in rows]
    replies = {
        reply.request_id: np.frombuffer(reply.response.mean_output.data, "<f4")
        for reply in stub.EncodeStream(_items(rows), timeout=60)
    }
    assert replies.keys() == {"0", "1", "2", "3"}
    for index, mean in enumerate(alone):
        np.testing.assert_allclose(replies[str(index)], mean, rtol=0, atol=BETWEEN_BATCHES)


def _items(rows: Rows) -> Iterator[pb.EncodeStreamRequest]:
    for index, row in enumerate(rows):
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[len(row)], data=np.array(row, "<i4").tobytes())
        yield pb.EncodeStreamRequest(
            request=pb.EncodeRequest(
                request_id=str(index), tokens=pb.TokenInput(token_ids=[tensor]), outputs=[pb.OUTPUT_MEAN]
            )
        )


def test_the_clients_bring_the_same_numbers(
    service: ServiceProcess, scraped_before_traffic: str, expected: list[EncodedRow]
) -> None:
    clients: tuple[SyncClient, ...] = (ElectraClient(service.url), GrpcElectraClient(service.target))
    for client in clients:
        with client:
            encoded = client.encode(
                token_ids=TOKEN_IDS, segment_ids=SEGMENT_IDS, padding_mask=PADDING_MASK, outputs=list(OUTPUTS)
            )
            assert encoded.sequence_output is not None
            got: list[EncodedRow] = [
                {"sequence_output": encoded.sequence_output[row]}
                | {name: getattr(encoded, name)[row] for name in OUTPUTS if name != "sequence_output"}
                for row in range(len(TOKEN_IDS))
            ]
            assert_close(got, expected, FROM_THE_MODEL)
            assert (encoded.model, encoded.tokens) == (DEMO_ID, 11)
            assert [(model.name, model.state, model.weights) for model in client.models()] == [
                (DEMO_ID, "ready", "pretrained")
            ]
            with pytest.raises(InvalidInput) as rejected:
                client.encode(token_ids=[[8000]])
            assert rejected.value.field == "token_ids[0][0]"


async def test_the_awaited_clients_bring_the_same_numbers(service: ServiceProcess, scraped_before_traffic: str) -> None:
    async with AsyncElectraClient(service.url) as rest, AsyncGrpcElectraClient(service.target) as grpc:
        ours, theirs = [
            await client.encode(text="down the rabbit hole", outputs=["mean_output"]) for client in (rest, grpc)
        ]
    assert ours.mean_output is not None
    assert theirs.mean_output is not None
    np.testing.assert_allclose(ours.mean_output, theirs.mean_output, rtol=0, atol=BETWEEN_TRANSPORTS)
