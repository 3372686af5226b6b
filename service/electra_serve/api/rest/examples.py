"""Example requests and responses of the OpenAPI document; the tests send each and compare."""

from __future__ import annotations

from typing import Final

REQUESTS: Final[dict[str, dict[str, object]]] = {
    "text": {
        "summary": "A text and a pair of texts, cut to fit",
        "value": {
            "text": ["a quick brown fox", ["a question", "its answer"]],
            "outputs": ["mean_output"],
            "truncate": True,
        },
    },
    "ids": {
        "summary": "Two sequences of ids",
        "value": {"token_ids": [[101, 3173, 200, 102], [101, 3173, 102]], "outputs": ["pooled_output", "mean_output"]},
    },
    "padded": {
        "summary": "Ids with segments and a mask, as bytes",
        "value": {
            "token_ids": [[101, 3173, 102, 200, 102, 0]],
            "segment_ids": [[0, 0, 0, 1, 1, 0]],
            "padding_mask": [[1, 1, 1, 1, 1, 0]],
            "encoding_format": "base64",
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

CLASSIFY_REQUESTS: Final[dict[str, dict[str, object]]] = {
    "ids": {
        "summary": "Two sequences of ids, for a model that labels sequences",
        "value": {"token_ids": [[101, 3173, 200, 102], [101, 3173, 102]], "top_k": 1},
    },
    "pairs": {
        "summary": "Pairs of texts, for a cross-encoder",
        "value": {"text": [["a question", "its answer"], ["a question", "something else"]], "truncate": True},
    },
    "tokens": {
        "summary": "A text, for a model that labels tokens",
        "value": {"text": "Alice met the White Rabbit.", "aggregation": "first"},
    },
    "question": {
        "summary": "A question and a long context",
        "value": {
            "question": "Who ran away?",
            "context": "The White Rabbit started violently and ran away.",
            "top_k": 2,
            "stride": 64,
        },
    },
}

CLASSIFY_RESPONSES: Final[dict[str, dict[str, object]]] = {
    "labels": {
        "summary": "Labels of sequences",
        "value": {
            "model": "sentiment",
            "head": "sequence_classification",
            "labels": [[{"label": "good", "score": 0.75}], [{"label": "bad", "score": 0.5}]],
            "usage": {"sequences": 2, "tokens": 7},
            "truncated": [False, False],
        },
    },
    "spans": {
        "summary": "Labeled spans of a text",
        "value": {
            "model": "names",
            "head": "token_classification",
            "spans": [
                [
                    {"label": "PER", "score": 0.75, "start": 0, "end": 5, "text": "Alice", "part": 0},
                    {"label": "PER", "score": 0.5, "start": 14, "end": 26, "text": "White Rabbit", "part": 0},
                ]
            ],
            "usage": {"sequences": 1, "tokens": 8},
            "truncated": [False],
        },
    },
    "answers": {
        "summary": "Answer spans of a context",
        "value": {
            "model": "questions",
            "head": "question_answering",
            "answers": [[{"score": 0.75, "start": 0, "end": 16, "text": "The White Rabbit", "part": 1}]],
            "usage": {"sequences": 1, "tokens": 17},
            "truncated": [False],
        },
    },
}

TOKENIZE_REQUESTS: Final[dict[str, dict[str, object]]] = {
    "texts": {"summary": "Two texts", "value": {"text": ["Alice met the White Rabbit.", "café"]}},
    "plain": {
        "summary": "A text without [CLS] and [SEP]",
        "value": {"text": "Alice met the White Rabbit.", "add_special_tokens": False},
    },
}

TOKENIZE_RESPONSES: Final[dict[str, dict[str, object]]] = {
    "tokens": {
        "summary": "Tokens of one text",
        "value": {
            "model": "electra_demo",
            "tokens": [
                [
                    {"id": 101, "piece": "[CLS]", "special": True},
                    {"id": 3173, "piece": "rabbit", "special": False, "start": 0, "end": 6, "text": "Rabbit"},
                    {"id": 200, "piece": "##s", "special": False, "start": 6, "end": 7, "text": "s"},
                    {"id": 102, "piece": "[SEP]", "special": True},
                ]
            ],
            "usage": {"sequences": 1, "tokens": 4},
        },
    },
}
