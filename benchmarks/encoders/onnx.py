"""onnxruntime on the fused graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.encoders.base import PaddingEncoder
from benchmarks.encoders.onnx_files import INPUTS, OUTPUTS, onnx_file
from benchmarks.machine import cores
from electra_serve.tensors import Batch, ModelOutput, Output, Outputs


class OnnxEncoder(PaddingEncoder):
    """Runs a session; computes only requested outputs.

    Args:
        session: An `onnxruntime.InferenceSession`.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def run_one(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `PaddingEncoder.run_one`."""
        wanted = [name for name in OUTPUTS if Output(name) in outputs]
        arrays = (batch.token_ids, batch.segment_ids, batch.padding_mask)
        feed = {name: array.astype(np.int64) for name, array in zip(INPUTS, arrays, strict=True)}
        found = dict(zip(wanted, self._session.run(wanted, feed), strict=True))
        if Output.POOLED in wanted:
            found[Output.POOLED] = found[Output.POOLED][:, None]  # (R, 1, H)
        return ModelOutput(**found)


def build_onnx(size: str, *, dtype: str) -> OnnxEncoder:
    """A session that uses every core."""
    return OnnxEncoder(open_session(size, dtype, threads=cores()))


def open_session(size: str, dtype: str, *, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on the fused graph, with `threads` for each run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_file(size, dtype), options, providers=["CPUExecutionProvider"])
