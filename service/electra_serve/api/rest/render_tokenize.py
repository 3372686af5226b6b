"""Renders a `TokenizeResult` as JSON, in pieces that leave the event loop free."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from electra_serve.api.rest.render import PIECE_ITEMS, RunOnThread, in_chunks, listed
from electra_serve.serving.tokens import TokenizeResult, Tokens


async def render_tokenize(result: TokenizeResult, on_thread: RunOnThread) -> list[bytes]:
    """Renders a response as chunks in order, on a thread if it is large."""
    return await in_chunks(tokenize_pieces(result), on_thread, large=result.tokens > PIECE_ITEMS)


def tokenize_pieces(result: TokenizeResult) -> Iterator[bytes]:
    """Renders `model`, `tokens` and `usage`, in this order."""
    yield orjson.dumps({"model": result.model})[:-1] + b',"tokens":['
    for index, row in enumerate(result.rows):
        yield b"," if index else b""
        yield from listed(_members(row, result))
    yield b'],"usage":' + orjson.dumps({"sequences": len(result.rows), "tokens": result.tokens}) + b"}"


def _members(row: Tokens, result: TokenizeResult) -> Iterator[dict[str, object]]:
    """Describes tokens; offsets count characters."""
    columns = (row.token_ids.tolist(), row.starts.tolist(), row.ends.tolist(), row.special.tolist())
    for id_, start, end, special in zip(*columns, strict=True):
        token: dict[str, object] = {"id": id_, "piece": result.pieces.get(id_, ""), "special": special}
        yield token if special else token | {"start": start, "end": end, "text": row.text[start:end]}
