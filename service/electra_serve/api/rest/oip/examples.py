"""Example requests and responses of the OpenAPI document."""

from __future__ import annotations

from typing import Final

REQUESTS: Final[dict[str, dict[str, object]]] = {
    "ids": {
        "summary": "Ids of two sequences with a mask",
        "value": {
            "id": "42",
            "inputs": [
                {
                    "name": "input_ids",
                    "datatype": "INT64",
                    "shape": [2, 4],
                    "data": [[101, 3173, 200, 102], [101, 3173, 102, 0]],
                },
                {"name": "attention_mask", "datatype": "INT64", "shape": [2, 4], "data": [1, 1, 1, 1, 1, 1, 1, 0]},
            ],
            "outputs": [{"name": "mean_output"}],
        },
    },
    "text": {
        "summary": "Texts, cut to fit",
        "value": {
            "parameters": {"truncate": True, "priority": 1, "timeout": 500000},
            "inputs": [
                {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["a quick brown fox", "a lazy dog"]}
            ],
            "outputs": [{"name": "embedding"}, {"name": "token_counts"}],
        },
    },
}

RESPONSES: Final[dict[str, dict[str, object]]] = {
    "numbers": {
        "summary": "Numbers, for a model whose outputs are two wide",
        "value": {
            "model_name": "electra_demo",
            "model_version": "1",
            "id": "42",
            "outputs": [
                {"name": "mean_output", "datatype": "FP32", "shape": [2, 2], "data": [0.125, -0.5, 0.25, 0.75]},
            ],
        },
    },
}
