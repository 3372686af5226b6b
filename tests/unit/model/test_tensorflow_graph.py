"""The TensorFlow engine's graph: one trace for every shape, in the expected dtypes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from electra_serve.model import ElectraBackbone
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.tensors import ENCODER_OUTPUTS, Outputs
from tests.data.reader import CASES, INPUTS, read_case
from tests.packing import pack_rows

SIGNATURE = [tf.TensorSpec((None, None), tf.int32)] * len(PackedInputs._fields)


def traced(backbone: ElectraBackbone, outputs: Outputs) -> Callable[..., dict[str, tf.Tensor]]:
    def run(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        found = compute_outputs(backbone, PackedInputs(*inputs), outputs)
        return {output.value: tensor for output, tensor in found.items()}

    function: Callable[..., dict[str, tf.Tensor]] = tf.function(run, input_signature=SIGNATURE, autograph=False)
    return function


def test_one_trace_serves_every_shape(golden_backbones: dict[str, ElectraBackbone]) -> None:
    function = traced(golden_backbones["above"], ENCODER_OUTPUTS)
    for case in CASES:
        inputs, golden = read_case("above", case)
        found = function(*PackedInputs.of(pack_rows(*(inputs[name] for name in INPUTS))))
        assert np.abs(found["pooled_output"].numpy()[:, 0] - golden["pooled_output"]).max() <= 1e-5
    assert function.experimental_get_tracing_count() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_softmax_and_norms_are_float32_in_the_graph(dtype: str) -> None:
    backbone = ElectraBackbone(60, 2, 2, 8, intermediate_dim=16, dtype=dtype)
    operations = traced(backbone, ENCODER_OUTPUTS).get_concrete_function().graph.get_operations()  # type: ignore[attr-defined]
    of_type = {kind: [op for op in operations if op.type == kind] for kind in ("Softmax", "Rsqrt", "BatchMatMulV2")}
    assert {kind: len(found) for kind, found in of_type.items()} == {"Softmax": 2, "Rsqrt": 5, "BatchMatMulV2": 5}
    *attention, means = of_type["BatchMatMulV2"]
    assert {op.outputs[0].dtype for op in [*of_type["Softmax"], *of_type["Rsqrt"], means]} == {tf.float32}
    assert {op.outputs[0].dtype for op in attention} == {tf.as_dtype(dtype)}
