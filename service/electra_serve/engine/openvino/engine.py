"""Runs a compiled graph: one engine per infer request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import openvino as ov

from electra_serve.engine.base import EngineSignature, ShapeGrid
from electra_serve.engine.input_checks import InputBounds
from electra_serve.engine.openvino.graph import IDS, POSITIONS
from electra_serve.engine.profiling import full_batch
from electra_serve.presets.config import BackboneConfig
from electra_serve.tensors import TOKEN_OUTPUTS, Batch, BatchShape, IntArray, ModelOutput, Output, Outputs

ONE_POSITION: Final = np.ones(1, np.int32)
NO_MEMORY: Final = "std::bad_alloc"
"""In the text of OpenVINO's errors where memory was short: it has one type for all of them."""


class OpenVINOEngine:
    """Runs a graph on a CPU. Replicas are engines on one compiled graph.

    The graph takes any batch shape, and is compiled once. For a shape that is new to it OpenVINO makes some of its
    kernels, which costs that one batch 5 to 40 % more; see docs/performance.md. All four outputs are made: next to the
    layers they cost nothing that can be measured. What does cost is decided by what is asked for: of how many positions
    the last layer computes its result, and what is copied.

    Args:
        compiled: From `compile_graph`, of a graph that `draw_graph` drew.
        config: The architecture it was drawn of.
        dtype: What it computes in.
        grid: The batches to expect: any shape up to its largest.
    """

    def __init__(self, compiled: ov.CompiledModel, config: BackboneConfig, *, dtype: str, grid: ShapeGrid) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._request: ov.InferRequest | None = None  # before warm-up, and once closed
        self._bounds = InputBounds.of(config, grid)
        self._signature = EngineSignature("openvino", "cpu", dtype, config.hidden_dim, grid)

    @property
    def signature(self) -> EngineSignature:
        """See `Engine.signature`."""
        return self._signature

    @property
    def compilations(self) -> int:
        """See `Engine.compilations`."""
        return 0

    def warm_up(self, shapes: Sequence[BatchShape]) -> None:
        """See `Engine.warm_up`."""
        if self._compiled is None:
            raise RuntimeError("the engine is closed")
        self._request = self._compiled.create_infer_request()
        for shape in shapes:
            self.run(full_batch(shape), frozenset({Output.MEAN}))
            self.run(full_batch(shape), frozenset({Output.CLS}))

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """See `Engine.run`."""
        if self._request is None:
            raise RuntimeError("the engine must be warm and open to run; it is not")
        self._bounds.check(batch)
        whole = np.array([batch.shape.length], np.int32)
        inputs = {name: getattr(batch, name) for name in IDS}
        inputs[POSITIONS] = whole if outputs & TOKEN_OUTPUTS else ONE_POSITION
        request = self._infer(self._request, inputs)
        # Copied, since the request writes its next outputs over these while rows of them are still being sent.
        return ModelOutput(**{name: request.get_tensor(name).data.copy() for name in outputs})

    def _infer(self, request: ov.InferRequest, inputs: Mapping[str, IntArray]) -> ov.InferRequest:
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
