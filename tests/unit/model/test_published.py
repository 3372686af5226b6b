"""The examples of the published page run as printed, and its presets have the stated sizes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from electra_serve import model as models
from electra_serve.errors import PresetError
from electra_serve.model import Backbone, BackboneOutput, ElectraBackbone
from electra_serve.model.initializers import zeros
from electra_serve.presets.catalog import CATALOG
from tests.data.reader import GOLDEN

PARAMETERS = {
    "electra_small_discriminator_uncased_en": 13_548_800,
    "electra_small_generator_uncased_en": 13_548_800,
    "electra_base_generator_uncased_en": 33_576_960,
    "electra_large_generator_uncased_en": 51_065_344,
    "electra_base_discriminator_uncased_en": 109_482_240,
    "electra_large_discriminator_uncased_en": 335_141_888,
}
TINY: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}


@pytest.fixture
def input_data() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return {
        "token_ids": np.ones(shape=(1, 12), dtype="int32"),
        "segment_ids": np.array([[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0]]),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]),
    }


def test_the_pretrained_example_runs(input_data: dict[str, object]) -> None:
    # as printed, except for the weights: no network here
    model = models.ElectraBackbone.from_preset("electra_base_discriminator_en", load_weights=False)
    assert model(input_data)["pooled_output"].shape == (1, 768)


def test_the_random_example_runs(input_data: dict[str, object]) -> None:
    backbone = models.ElectraBackbone(
        vocabulary_size=1000,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        dropout=0.1,
        max_sequence_length=512,
    )
    sequence_output, pooled_output = backbone(input_data)
    assert sequence_output.shape == (1, 12, 32)
    assert pooled_output.shape == (1, 32)
    assert backbone.embedding_dim == 32


def test_predict_returns_names_too(input_data: dict[str, object]) -> None:
    output = ElectraBackbone(10, **TINY).predict(input_data, verbose=0)
    assert isinstance(output, BackboneOutput)
    assert output["sequence_output"] is output.sequence_output is output[0]
    with pytest.raises(KeyError):
        output["count"]


@pytest.mark.parametrize("preset", sorted(CATALOG))
def test_presets_have_their_published_sizes(preset: str) -> None:
    backbone = ElectraBackbone.from_preset(preset, load_weights=False, kernel_initializer=zeros)  # drawing takes long
    assert backbone.count_params() == backbone.config.parameters == PARAMETERS[preset]
    metadata = ElectraBackbone.presets[preset]["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["params"] == PARAMETERS[preset]


def test_presets_lists_the_published_ones() -> None:
    assert set(ElectraBackbone.presets) == set(PARAMETERS)


def test_the_base_class_reads_the_class_from_the_preset() -> None:
    assert type(Backbone.from_preset(str(GOLDEN / "below"))) is ElectraBackbone


def test_a_class_rejects_a_preset_of_another() -> None:
    class OtherBackbone(Backbone):
        pass

    with pytest.raises(TypeError, match="must be a OtherBackbone; below is a ElectraBackbone"):
        OtherBackbone.from_preset(str(GOLDEN / "below"))


def test_from_preset_rejects_unknown_arguments() -> None:
    with pytest.raises(TypeError, match="takes no argument drop_out"):
        ElectraBackbone.from_preset("electra_demo", load_weights=False, drop_out=0.0)


def test_keras_own_arguments_pass() -> None:
    backbone = ElectraBackbone(10, 1, 2, 8, intermediate_dim=8, name="encoder", trainable=False, dtype="bfloat16")
    assert (backbone.name, backbone.trainable, backbone.dtype_policy.name) == ("encoder", False, "bfloat16")


def test_from_preset_takes_overrides() -> None:
    backbone = ElectraBackbone.from_preset(str(GOLDEN / "below"), dropout=0.3, dtype="bfloat16", name="mine")
    assert (backbone.config.dropout, backbone.dtype_policy.name, backbone.name) == (0.3, "bfloat16", "mine")


def test_offline_weights_of_a_published_preset_are_not_available() -> None:
    with pytest.raises(PresetError, match=r"hub\.offline is set: run `electra-serve presets pull"):
        ElectraBackbone.from_preset("electra_small_discriminator_uncased_en")


@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16", keras.DTypePolicy("bfloat16")])
def test_config_survives_the_round_trip(dtype: str | keras.DTypePolicy) -> None:
    backbone = ElectraBackbone(10, **TINY, embedding_dim=4, dtype=dtype, hidden_activation="gelu", name="tiny")
    config = backbone.get_config()
    again = ElectraBackbone.from_config(config)
    assert again.get_config() == config
    assert again.dtype_policy == keras.dtype_policies.get(dtype)
    assert config["hidden_activation"] == "gelu"
    assert "hidden_activation" not in ElectraBackbone(10, **TINY).get_config()


def test_a_bigger_model_with_a_backbone_in_it_saves_and_loads(
    tmp_path_factory: pytest.TempPathFactory, input_data: dict[str, object]
) -> None:
    backbone = ElectraBackbone(10, **TINY)
    classifier = keras.Model(backbone.input, keras.layers.Dense(2)(backbone.output.pooled_output))
    path = tmp_path_factory.mktemp("classifier") / "classifier.keras"
    classifier.save(path)
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(classifier(input_data), again(input_data))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vocabulary_size": 5}, TypeError, "another name for vocab_size; got both"),
        ({"drop_out": 0.0, "hidden_act": "gelu"}, TypeError, "takes no argument drop_out, hidden_act"),
        ({"layer_norm_eps": 1e-5}, TypeError, "takes no argument layer_norm_eps"),
        ({"hidden_dim": None}, TypeError, "needs a value for hidden_dim, embedding_dim"),
        ({"num_heads": 3}, ValueError, "received hidden_dim 8 and num_heads 3"),
        ({"num_heads": 0}, ValueError, "num_heads must be an integer from 1 to 256; received 0"),
        ({"num_layers": -1}, ValueError, "num_layers must be an integer"),
        ({"vocab_size": 2.0}, ValueError, "vocab_size must be an integer"),
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1"),
        ({"hidden_activation": "relu"}, ValueError, "must be one of gelu_tanh, gelu; received 'relu'"),
    ],
)
def test_wrong_arguments_are_rejected(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ElectraBackbone(**{"vocab_size": 10, **TINY, **change})
