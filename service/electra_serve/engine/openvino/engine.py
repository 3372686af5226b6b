"""Runs a compiled graph: one engine per infer request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import openvino as ov

from electra_serve.engine.base import EngineSignature
from electra_serve.engine.input_checks import InputBounds
from electra_serve.engine.openvino.graph import POSITION_INPUTS, QUERIES, STARTS
from electra_serve.presets.config import BackboneConfig
from electra_serve.tensors import TOKEN_OUTPUTS, Batch, BatchShape, Int32Array, ModelOutput, Outputs

NO_MEMORY: Final = "std::bad_alloc"
"""In the text of OpenVINO's errors where memory was short: it has one type for all of them."""


class OpenVINOEngine:
    """Runs a graph on a CPU. Engines on one compiled graph share its weights.

    The graph takes any batch shape and is compiled once; for each shape OpenVINO chooses kernels at the first run, and
    keeps them. All four outputs are computed: next to the layers they cost nothing that can be measured. What does cost
    is how many positions the last layer computes, and what is copied.

    Args:
        compiled: From `compile_graph`, of a graph that `draw_graph` drew.
        config: The architecture it was drawn of.
        dtype: What it computes in.
        shapes: The batches to run.
    """

    def __init__(
        self, compiled: ov.CompiledModel, config: BackboneConfig, *, dtype: str, shapes: tuple[BatchShape, ...]
    ) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._request: ov.InferRequest | None = None  # before warm-up, and once closed
        self._bounds = InputBounds.of(config, shapes)
        self._signature = EngineSignature("openvino", "cpu", dtype, config.hidden_dim, shapes)

    @property
    def signature(self) -> EngineSignature:
        """See `Engine.signature`."""
        return self._signature

    @property
    def compilations(self) -> int:
        """See `Engine.compilations`."""
        return 0

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        if self._compiled is None:
            raise RuntimeError("the engine is closed")
        self._request = self._compiled.create_infer_request()

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `Engine.run`."""
        if self._request is None:
            raise RuntimeError("the engine must be warm and open to run; it is not")
        self._bounds.check(batch)
        inputs: dict[str, Int32Array] = {name: getattr(batch, name) for name in POSITION_INPUTS}
        if outputs & TOKEN_OUTPUTS:
            inputs |= {QUERIES: _each_index(batch.token_ids), STARTS: batch.starts}
        else:
            inputs |= {QUERIES: batch.starts, STARTS: _each_index(batch.starts)}
        request = self._infer(self._request, inputs)
        # Copied, since the request writes its next outputs over these while rows of them are still being sent.
        return ModelOutput(**{name: request.get_tensor(name).data.copy() for name in outputs})

    def _infer(self, request: ov.InferRequest, inputs: Mapping[str, Int32Array]) -> ov.InferRequest:
        try:
            request.infer(inputs, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            # A request that failed half-way is not to be trusted again: where memory was short, its next run crashed.
            self._request = self._compiled.create_infer_request() if self._compiled is not None else None
            if NO_MEMORY in str(error):
                raise MemoryError(str(error)) from error
            raise
        return request

    def close(self) -> None:
        """See `Engine.close`."""
        self._request = None
        self._compiled = None


def _each_index(array: Int32Array) -> Int32Array:
    """0, 1, 2, … along the rows of an (R, N) array: (R, N)."""
    rows, count = array.shape
    return np.tile(np.arange(count, dtype=np.int32), (rows, 1))
