"""The architecture as data."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.errors import PresetError
from electra_serve.presets.catalog import ALIASES, CATALOG
from electra_serve.presets.config import HIDDEN_ACTIVATIONS, LIMITS, BackboneConfig

VALID = BackboneConfig(
    vocab_size=100, num_layers=2, num_heads=4, hidden_dim=8, embedding_dim=4, intermediate_dim=16, dropout=0.0
)

PARAMETERS = {
    "electra_small_discriminator_uncased_en": 13_548_800,
    "electra_small_generator_uncased_en": 13_548_800,
    "electra_base_generator_uncased_en": 33_576_960,
    "electra_large_generator_uncased_en": 51_065_344,
    "electra_base_discriminator_uncased_en": 109_482_240,
    "electra_large_discriminator_uncased_en": 335_141_888,
}


@st.composite
def configs(draw: st.DrawFn) -> BackboneConfig:
    sizes = {name: draw(st.integers(1, limit)) for name, limit in LIMITS.items() if name != "hidden_dim"}
    head_dim = draw(st.integers(1, LIMITS["hidden_dim"] // sizes["num_heads"]))
    return BackboneConfig(
        **sizes,
        hidden_dim=sizes["num_heads"] * head_dim,
        dropout=draw(st.floats(0, 1, exclude_max=True)),
        hidden_activation=draw(st.sampled_from(HIDDEN_ACTIVATIONS)),
    )


@given(configs())
def test_a_mapping_gives_the_config_back(config: BackboneConfig) -> None:
    assert BackboneConfig.from_mapping({**config.to_mapping(), "name": "x", "dtype": {}}) == config


@given(configs())
def test_more_of_anything_is_more_parameters(config: BackboneConfig) -> None:
    for name in ("vocab_size", "num_layers", "max_sequence_length", "num_segments", "intermediate_dim"):
        if getattr(config, name) < LIMITS[name]:
            larger = dataclasses.replace(config, **{name: getattr(config, name) + 1})
            assert larger.parameters > config.parameters


def test_the_usual_activation_is_not_written() -> None:
    assert "hidden_activation" not in VALID.to_mapping()
    assert dataclasses.replace(VALID, hidden_activation="gelu").to_mapping()["hidden_activation"] == "gelu"


@pytest.mark.parametrize("name", LIMITS)
def test_sizes_are_bounded_from_both_sides(name: str) -> None:
    heads: dict[str, Any] = {"num_heads": 1} if name != "num_heads" else {"hidden_dim": LIMITS[name]}
    for allowed in (1, LIMITS[name]):
        assert getattr(dataclasses.replace(VALID, **{**heads, name: allowed}), name) == allowed
    for value in (0, LIMITS[name] + 1, -1, 1.0, True, "8", None, 10**30):
        with pytest.raises(PresetError, match=f"{name} must be an integer from 1 to {LIMITS[name]}; received"):
            dataclasses.replace(VALID, **{**heads, name: value})


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1, "0.1", None, float("nan"), True])
def test_wrong_dropout_is_rejected(dropout: Any) -> None:
    with pytest.raises(PresetError, match="dropout must be at least 0 and below 1"):
        dataclasses.replace(VALID, dropout=dropout)


@pytest.mark.parametrize("activation", ["relu", "", None, ["gelu"]])
def test_a_wrong_activation_is_rejected(activation: Any) -> None:
    with pytest.raises(PresetError, match="hidden_activation must be one of gelu_tanh, gelu"):
        dataclasses.replace(VALID, hidden_activation=activation)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(PresetError, match="received hidden_dim 8 and num_heads 3"):
        dataclasses.replace(VALID, num_heads=3)


def test_a_missing_field_is_named() -> None:
    values = VALID.to_mapping()
    del values["num_heads"]
    with pytest.raises(PresetError, match="num_heads"):
        BackboneConfig.from_mapping(values)


def test_messages_do_not_repeat_large_input() -> None:
    with pytest.raises(PresetError) as caught:
        BackboneConfig.from_mapping({**VALID.to_mapping(), "vocab_size": "9" * 10**6})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("preset", "parameters"), PARAMETERS.items())
def test_published_presets_have_their_sizes(preset: str, parameters: int) -> None:
    assert CATALOG[preset].parameters == parameters


def test_each_published_preset_has_a_short_name() -> None:
    assert {short.replace("_en", "_uncased_en"): id_ for short, id_ in ALIASES.items()} == {id_: id_ for id_ in CATALOG}


def test_published_presets_say_where_they_are_kept() -> None:
    preset = CATALOG["electra_base_generator_uncased_en"]
    assert preset.kaggle_handle == "kaggle://keras/electra/keras/electra_base_generator_uncased_en/2"
    assert preset.hf_handle == "hf://keras/electra_base_generator_uncased_en"
    assert preset.description.startswith("12-layer base ELECTRA generator model.")
