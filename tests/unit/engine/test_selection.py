"""`auto` settings, and settings that contradict an artifact."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from electra_serve.engine.selection import choose_dtype, choose_engine
from electra_serve.errors import EngineUnavailable
from electra_serve.presets.artifact import Artifact, ArtifactDtype
from electra_serve.settings.schema import ModelSettings


def artifact(dtype: ArtifactDtype = "bfloat16") -> Artifact:
    return Artifact("openvino", dtype, "electra_demo", None, "random", "random", {}, {})


def asked(**settings: str) -> ModelSettings:
    return ModelSettings.model_validate({"preset": "p", **settings})


def only(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


FOR_CPUS = only("openvino", "tensorflow", "jax")
EVERYTHING = only("openvino", "tensorflow", "jax", "jax_cuda12_plugin", "nvidia")


@pytest.mark.parametrize(
    ("device", "gpu", "installed", "expected"),
    [
        ("auto", False, EVERYTHING, "openvino"),
        ("auto", True, EVERYTHING, "jax"),
        ("cpu", True, EVERYTHING, "openvino"),
        ("gpu:1", False, EVERYTHING, "jax"),
        ("gpu", True, only("openvino", "tensorflow", "nvidia"), "tensorflow"),
        ("auto", True, FOR_CPUS, "openvino"),
        ("cpu", False, only("tensorflow", "jax"), "tensorflow"),
        ("gpu", True, only("tensorflow"), "tensorflow"),
        ("auto", True, only("jax", "jax_cuda13_plugin"), "jax"),
    ],
)
def test_auto_takes_the_fastest_installed(
    device: str, gpu: bool, installed: Callable[[str], bool], expected: str
) -> None:
    assert choose_engine(asked(device=device), installed=installed, has_gpu=lambda: gpu) == expected


@pytest.mark.parametrize("settings", [{"dtype": "float16"}, {"compiler": "xla"}, {"compiler": "graph"}])
def test_auto_takes_an_engine_that_does_what_is_asked_for(settings: dict[str, str]) -> None:
    assert choose_engine(asked(device="cpu", **settings), installed=EVERYTHING) == "tensorflow"


def test_nothing_installed_is_said() -> None:
    with pytest.raises(EngineUnavailable, match="jax with jax; none is installed"):
        choose_engine(asked(device="cpu"), installed=only())


def test_a_gpu_asked_for_is_not_replaced_by_a_cpu() -> None:
    with pytest.raises(EngineUnavailable, match="device gpu:0 needs one of"):
        choose_engine(asked(device="gpu:0"), installed=only("openvino", "jax"))


def test_a_named_engine_that_is_not_installed_is_said() -> None:
    with pytest.raises(EngineUnavailable, match="needs the package openvino"):
        choose_engine(asked(engine="openvino"), installed=only("tensorflow"))


def test_an_artifact_decides_even_where_there_is_a_gpu() -> None:
    assert choose_engine(asked(), artifact(), installed=EVERYTHING, has_gpu=lambda: True) == "openvino"
    with pytest.raises(EngineUnavailable, match="compiled for; got tensorflow"):
        choose_engine(asked(engine="tensorflow"), artifact(), installed=EVERYTHING)


@pytest.mark.parametrize(
    ("setting", "made_for", "expected"),
    [
        ("auto", None, "float32"),
        ("bfloat16", None, "bfloat16"),
        ("int8", None, "int8"),
        ("auto", "bfloat16", "bfloat16"),
        ("float32", "bfloat16", "float32"),
        ("auto", "int8", "int8"),
        ("int8", "int8", "int8"),
    ],
)
def test_dtypes(setting: str, made_for: ArtifactDtype | None, expected: str) -> None:
    assert choose_dtype(setting, None if made_for is None else artifact(made_for)) == expected


@pytest.mark.parametrize(
    ("dtype", "made_for"), [("int8", "float32"), ("int8", "bfloat16"), ("float32", "int8"), ("bfloat16", "int8")]
)
def test_an_artifact_has_the_weights_that_it_was_compiled_with(dtype: str, made_for: ArtifactDtype) -> None:
    with pytest.raises(EngineUnavailable, match=f"must be auto or {made_for}.*; got {dtype}: compile .* again with"):
        choose_dtype(dtype, artifact(made_for))
