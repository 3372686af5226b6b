"""KerasHub's own ELECTRA, in the two ways that users call it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.encoders.base import PaddingEncoder
from benchmarks.weights import preset_folder
from electra_serve.tensors import Batch, ModelOutput, Outputs

Inputs = Mapping[str, Any]
Call = Callable[[Inputs], Mapping[str, Any]]


class KerasHubEncoder(PaddingEncoder):
    """Calls a KerasHub backbone.

    Args:
        call: Computes both outputs of a batch.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def run_one(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `PaddingEncoder.run_one`; always computes both of KerasHub's outputs."""
        del outputs
        found = self._call(
            {"token_ids": batch.token_ids, "segment_ids": batch.segment_ids, "padding_mask": batch.padding_mask}
        )
        return ModelOutput(
            sequence_output=np.asarray(found["sequence_output"], np.float32),
            pooled_output=np.asarray(found["pooled_output"], np.float32)[:, None],  # (R, 1, H)
        )


def build_predict(size: str) -> KerasHubEncoder:
    """`predict`, as KerasHub's guides have it."""
    backbone = load_keras_hub(size)

    def call(inputs: Inputs) -> Mapping[str, Any]:
        found: Mapping[str, Any] = backbone.predict(dict(inputs), batch_size=len(inputs["token_ids"]), verbose=0)
        return found

    return KerasHubEncoder(call)


def build_function(size: str) -> KerasHubEncoder:
    """Builds the backbone traced once for any shape, as a careful user would."""
    return KerasHubEncoder(trace_keras_hub(size))


def load_keras_hub(size: str) -> Any:
    """The backbone, on the benchmarks' weights."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras_hub

    return keras_hub.models.Backbone.from_preset(str(preset_folder(size)))


def trace_keras_hub(size: str) -> Call:
    """The backbone as one `tf.function` of dynamic shape."""
    backbone = load_keras_hub(size)
    import tensorflow as tf

    ids = tf.TensorSpec((None, None), tf.int32)

    @tf.function(input_signature=[{"token_ids": ids, "segment_ids": ids, "padding_mask": ids}])
    def call(inputs: Inputs) -> Mapping[str, Any]:
        found: Mapping[str, Any] = backbone(inputs, training=False)
        return found

    traced: Call = call
    return traced
