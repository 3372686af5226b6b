"""Example requests and responses of the OpenAPI document; the tests send each and compare."""

from __future__ import annotations

from typing import Final

REQUESTS: Final[dict[str, dict[str, object]]] = {
    "ids": {
        "summary": "Two sequences of ids",
        "value": {"token_ids": [[2, 17, 43, 3], [2, 99, 3]], "outputs": ["pooled_output", "mean_output"]},
    },
    "padded": {
        "summary": "Ids with segments and a mask, as bytes",
        "value": {
            "token_ids": [[2, 17, 3, 43, 3, 0]],
            "segment_ids": [[0, 0, 0, 1, 1, 0]],
            "padding_mask": [[1, 1, 1, 1, 1, 0]],
            "encoding_format": "base64",
        },
    },
    "text": {
        "summary": "A text and a pair of texts, cut to fit",
        "value": {
            "text": ["a quick brown fox", ["a question", "its answer"]],
            "outputs": ["mean_output"],
            "truncate": True,
        },
    },
}

RESPONSES: Final[dict[str, dict[str, object]]] = {
    "float": {
        "summary": "Numbers as JSON, for a model whose outputs are two wide",
        "value": {
            "model": "electra_demo",
            "pooled_output": [[0.125, -0.5], [0.25, 0.75]],
            "usage": {"sequences": 2, "tokens": 7},
            "truncated": [False, False],
        },
    },
    "base64": {
        "summary": "The first row of the same, as bytes",
        "value": {
            "model": "electra_demo",
            "pooled_output": [{"dtype": "float32", "shape": [2], "data": "AAAAPgAAAL8="}],
            "usage": {"sequences": 1, "tokens": 4},
            "truncated": [False],
        },
    },
}
