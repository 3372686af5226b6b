from __future__ import annotations

import pytest

from electra_serve.api.rest.respond import JsonChunks, json_response
from tests.unit.api.rest.asgi import Wire, http_scope
from tests.unit.api.rest.fake_service import READY_MODEL


@pytest.mark.parametrize("chunks", [[b"{}"], [b'{"a"', b":", b"1}"]])
async def test_chunks_follow_one_another_under_one_length(chunks: list[bytes]) -> None:
    wire = Wire()
    await wire.run(JsonChunks(chunks, send_timeout_s=5), http_scope())
    assert wire.status == 200
    assert wire.headers == {"content-length": str(len(b"".join(chunks))), "content-type": "application/json"}
    assert [message["body"] for message in wire.sent[1:]] == chunks
    assert [message["more_body"] for message in wire.sent[1:]] == [True] * (len(chunks) - 1) + [False]


def test_dataclasses_and_enums_are_json() -> None:
    assert b'"state":"ready"' in json_response(READY_MODEL).body
