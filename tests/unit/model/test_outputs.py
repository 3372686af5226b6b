"""Only what is asked for is computed, and it is the same whatever else is asked for."""

from __future__ import annotations

from itertools import chain, combinations

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from electra_serve.model import ElectraBackbone
from electra_serve.model.attention import Attend
from electra_serve.model.outputs import compute_outputs
from electra_serve.tensors import TOKEN_OUTPUTS, Output, Outputs
from tests.data.reader import INPUTS, read_case

SUBSETS = [
    frozenset(subset)
    for subset in chain.from_iterable(combinations(sorted(Output), size) for size in range(1, len(Output) + 1))
]


@pytest.fixture(scope="module")
def backbone(golden_backbones: dict[str, ElectraBackbone]) -> ElectraBackbone:
    return golden_backbones["below"]


def computed(
    backbone: ElectraBackbone, outputs: Outputs, case: str = "everything"
) -> dict[Output, NDArray[np.float32]]:
    inputs, _ = read_case("below", case)
    token_ids, segment_ids, padding_mask = (inputs[name] for name in INPUTS)
    found = compute_outputs(backbone, token_ids, segment_ids, padding_mask, outputs)
    return {output: keras.ops.convert_to_numpy(tensor) for output, tensor in found.items()}


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_a_subset_equals_its_part_of_everything(backbone: ElectraBackbone, outputs: Outputs) -> None:
    everything, some = computed(backbone, frozenset(Output)), computed(backbone, outputs)
    assert set(some) == outputs
    for output, array in some.items():
        np.testing.assert_allclose(array, everything[output], atol=1e-6, rtol=0)


def test_outputs_are_what_they_are_called(backbone: ElectraBackbone) -> None:
    inputs, golden = read_case("below", "everything")
    found = computed(backbone, frozenset(Output))
    mask = inputs["padding_mask"].astype(np.float32)[:, :, None]
    hidden = golden["sequence_output"]
    expected = {
        Output.SEQUENCE: hidden * mask,
        Output.POOLED: golden["pooled_output"],
        Output.CLS: hidden[:, 0],
        Output.MEAN: (hidden * mask).sum(1) / mask.sum(1),
    }
    for output, array in expected.items():
        np.testing.assert_allclose(found[output], array, atol=1e-5, rtol=0)


def test_masked_positions_are_exactly_zero(backbone: ElectraBackbone) -> None:
    inputs, _ = read_case("below", "everything")
    sequence_output = computed(backbone, frozenset({Output.SEQUENCE}))[Output.SEQUENCE]
    assert (sequence_output[inputs["padding_mask"] == 0] == 0).all()
    assert (sequence_output[inputs["padding_mask"] == 1] != 0).any(axis=-1).all()


def test_cls_is_position_0_even_where_that_is_masked(backbone: ElectraBackbone) -> None:
    inputs, _ = read_case("below", "everything")
    mask = inputs["padding_mask"].copy()
    mask[:, 0] = 0
    mask[:, 3] = 1
    full = backbone({**inputs, "padding_mask": mask})
    found = compute_outputs(backbone, inputs["token_ids"], inputs["segment_ids"], mask, frozenset({Output.CLS}))
    np.testing.assert_allclose(found[Output.CLS], full.sequence_output[:, 0], atol=1e-6)


class RecordingLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Stands for the last layer and keeps what it was asked."""

    def __init__(self, inner: keras.layers.Layer) -> None:
        super().__init__()
        self.inner, self.query_rows = inner, list[int | None]()

    def call(
        self, inputs: object, attention_bias: object, query_rows: int | None = None, attend: Attend | None = None
    ) -> object:
        self.query_rows.append(query_rows)
        return self.inner(inputs, attention_bias=attention_bias, query_rows=query_rows, attend=attend)


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_the_last_layer_computes_all_rows_only_for_token_outputs(outputs: Outputs) -> None:
    backbone = ElectraBackbone(60, 2, 2, 8, intermediate_dim=16)
    recorder = RecordingLayer(backbone.transformer_layers[-1])
    backbone.transformer_layers = [*backbone.transformer_layers[:-1], recorder]
    computed(backbone, outputs)
    assert list(recorder.query_rows) == [None if outputs & TOKEN_OUTPUTS else 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "mixed_float16"])
def test_everything_is_float32_and_finite(dtype: str) -> None:
    backbone = ElectraBackbone(60, 2, 2, 8, intermediate_dim=16, dtype=dtype)
    for array in computed(backbone, frozenset(Output)).values():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
