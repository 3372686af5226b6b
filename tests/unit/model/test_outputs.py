"""Only requested outputs are computed, and they do not depend on each other."""

from __future__ import annotations

from itertools import chain, combinations

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from electra_serve.model import ElectraBackbone
from electra_serve.model.attention import Attend, Tensor
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.tensors import (
    ENCODER_OUTPUTS,
    TOKEN_OUTPUTS,
    Batch,
    BatchShape,
    Encoding,
    Output,
    Outputs,
    Placement,
)
from tests.data.reader import INPUTS, read_case
from tests.packing import compute_rows, pack_rows

SUBSETS = [
    frozenset(subset)
    for subset in chain.from_iterable(
        combinations(sorted(ENCODER_OUTPUTS), size) for size in range(1, len(ENCODER_OUTPUTS) + 1)
    )
]


@pytest.fixture(scope="module")
def backbone(golden_backbones: dict[str, ElectraBackbone]) -> ElectraBackbone:
    return golden_backbones["below"]


def computed(
    backbone: ElectraBackbone, outputs: Outputs, case: str = "everything"
) -> dict[Output, NDArray[np.float32]]:
    inputs, _ = read_case("below", case)
    return compute_rows(backbone, pack_rows(*(inputs[name] for name in INPUTS)), outputs)


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_a_subset_equals_its_part_of_everything(backbone: ElectraBackbone, outputs: Outputs) -> None:
    everything, some = computed(backbone, ENCODER_OUTPUTS), computed(backbone, outputs)
    assert set(some) == outputs
    for output, array in some.items():
        np.testing.assert_allclose(array, everything[output], atol=1e-6, rtol=0)


def test_outputs_are_what_they_are_called(backbone: ElectraBackbone) -> None:
    inputs, golden = read_case("below", "everything")
    found = computed(backbone, ENCODER_OUTPUTS)
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
    batch = pack_rows(inputs["token_ids"], inputs["segment_ids"], mask)
    found = compute_rows(backbone, batch, frozenset({Output.CLS}))
    np.testing.assert_allclose(found[Output.CLS], full.sequence_output[:, 0], atol=1e-6)


class RecordingLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Replaces the last layer and records its arguments."""

    def __init__(self, inner: keras.layers.Layer) -> None:
        super().__init__()
        self.inner, self.queries = inner, list[int | None]()

    def call(
        self, inputs: object, attention_bias: object, queries: Tensor | None = None, attend: Attend | None = None
    ) -> object:
        self.queries.append(None if queries is None else queries.shape[1])
        return self.inner(inputs, attention_bias=attention_bias, queries=queries, attend=attend)


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_the_last_layer_computes_all_positions_only_for_token_outputs(outputs: Outputs) -> None:
    backbone = ElectraBackbone(60, 2, 2, 8, intermediate_dim=16)
    recorder = RecordingLayer(backbone.transformer_layers[-1])
    backbone.transformer_layers = [*backbone.transformer_layers[:-1], recorder]
    shape = BatchShape(2, 12)
    compute_outputs(backbone, PackedInputs.of(Batch.pack([], [], shape)), outputs)
    assert list(recorder.queries) == [None if outputs & TOKEN_OUTPUTS else shape.slots]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "mixed_float16"])
def test_everything_is_float32_and_finite(dtype: str) -> None:
    backbone = ElectraBackbone(60, 2, 2, 8, intermediate_dim=16, dtype=dtype)
    for array in computed(backbone, ENCODER_OUTPUTS).values():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()


def sequence_of(*token_ids: int) -> Encoding:
    ids = np.array(token_ids, np.int32)
    return Encoding(ids, ids * 0, ids * 0 + 1, compute_length=len(ids), real_tokens=len(ids))


@pytest.mark.parametrize("outputs", [ENCODER_OUTPUTS, frozenset({Output.CLS, Output.POOLED})], ids=["all", "cls"])
def test_numbers_that_are_not_finite_stay_in_their_row(outputs: Outputs) -> None:
    backbone = ElectraBackbone(60, 2, 2, 8, intermediate_dim=16)
    [embeddings] = backbone.token_embedding.get_weights()
    embeddings[59] = np.nan
    backbone.token_embedding.set_weights([embeddings])
    places = [Placement(0, 0, 0, 3), Placement(0, 1, 3, 4), Placement(1, 0, 0, 3)]
    batch = Batch.pack([sequence_of(1, 2, 3), sequence_of(4, 59, 5, 6), sequence_of(1, 2, 3)], places, BatchShape(2, 8))
    for tensor in compute_outputs(backbone, PackedInputs.of(batch), outputs).values():
        spoiled, whole = keras.ops.convert_to_numpy(tensor)
        assert np.isnan(spoiled).any()
        assert np.isfinite(whole).all()


def test_padding_is_exactly_zero_even_next_to_numbers_that_are_not_finite() -> None:
    backbone = ElectraBackbone(60, 1, 2, 8, intermediate_dim=16)
    backbone.position_embedding.position_embeddings.assign(
        np.full(backbone.position_embedding.position_embeddings.shape, np.nan)
    )
    batch = Batch.pack([sequence_of(1, 2, 3)], [Placement(0, 0, 0, 3)], BatchShape(1, 8))
    found = compute_outputs(backbone, PackedInputs.of(batch), frozenset({Output.SEQUENCE}))[Output.SEQUENCE]
    assert (keras.ops.convert_to_numpy(found)[0, 3:] == 0).all()
