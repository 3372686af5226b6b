"""Runs a compiled graph; each engine has its own infer request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import openvino as ov

from electra_serve.engine.base import EngineSignature
from electra_serve.engine.input_checks import InputBounds
from electra_serve.engine.openvino.graph import LABELED, POSITION_INPUTS, QUERIES, STARTS
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import HeadConfig
from electra_serve.tensors import (
    ENCODER_OUTPUTS,
    TOKEN_OUTPUTS,
    Batch,
    BatchShape,
    Int32Array,
    ModelOutput,
    Output,
    Outputs,
)

NO_MEMORY: Final = "std::bad_alloc"  # in the text of OpenVINO's error, which has one type for all failures


class OpenVINOEngine:
    """Runs a compiled graph on a CPU. Engines on one compiled graph share its weights.

    All outputs of the encoder are computed, since they cost little next to the layers; only requested ones are copied.
    A head computes only if its output is requested.
    """

    def __init__(
        self,
        compiled: ov.CompiledModel,
        config: BackboneConfig,
        head: HeadConfig | None = None,
        *,
        dtype: str,
        shapes: tuple[BatchShape, ...],
    ) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._request: ov.InferRequest | None = None  # None before `warm_up` and after `close`
        self._bounds = InputBounds.of(config, shapes)
        self._head = head
        # An artifact has its head even if the settings ask for the encoder alone.
        self._labels = any(LABELED in port.names for port in compiled.inputs)
        outputs = ENCODER_OUTPUTS if head is None else ENCODER_OUTPUTS | {head.output}
        self._signature = EngineSignature("openvino", "cpu", dtype, config.hidden_dim, shapes, outputs)

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
            raise RuntimeError("cannot run: the engine is not warm, or is closed")
        self._bounds.check(batch)
        if not outputs <= self._signature.outputs:
            raise ValueError(f"outputs must be among those of the signature; got {', '.join(sorted(outputs))}")
        inputs: dict[str, Int32Array] = {name: getattr(batch, name) for name in POSITION_INPUTS}
        if outputs & TOKEN_OUTPUTS:
            inputs |= {QUERIES: _each_index(batch.token_ids), STARTS: batch.starts}
        else:
            inputs |= {QUERIES: batch.starts, STARTS: _each_index(batch.starts)}
        if self._labels:
            inputs[LABELED] = self._labeled(inputs, outputs)
        request = self._infer(self._request, inputs)
        # Copied, since the next run overwrites them while responses are still being sent.
        return ModelOutput(**{name: request.get_tensor(name).data.copy() for name in outputs})

    def _labeled(self, inputs: Mapping[str, Int32Array], outputs: Outputs) -> Int32Array:
        """Returns the positions or slots that the head computes, (R, N)."""
        if self._head is None or self._head.output not in outputs:
            return np.zeros((len(inputs[STARTS]), 0), np.int32)
        if self._head.output is Output.TOKEN_LOGITS:
            return inputs[QUERIES]
        return _each_index(inputs[STARTS]) if self._head.uses_pooler else inputs[STARTS]

    def _infer(self, request: ov.InferRequest, inputs: Mapping[str, Int32Array]) -> ov.InferRequest:
        try:
            request.infer(inputs, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            # A failed request is replaced: after running out of memory, its next run crashed.
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
    rows, count = array.shape
    return np.tile(np.arange(count, dtype=np.int32), (rows, 1))  # (R, N)
