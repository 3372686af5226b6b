"""Every engine computes the logits of every head, in packed rows, and only if they are requested."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from electra_serve.engine.base import Engine
from electra_serve.presets.heads import HeadConfig
from electra_serve.tensors import ENCODER_OUTPUTS, HEAD_OUTPUTS, Output, Outputs
from tests.contract.engines import ENGINES, LIMITS, ONE_SHAPE, SINGLE, build, computes_in, random_packed
from tests.contract.heads import HEADS, expected_logits, preset_with

WITHOUT_COMPILER = ("openvino", "tensorflow graph")
FLOAT32 = 1e-5
BFLOAT16 = 0.05


@pytest.fixture(scope="module", params=HEADS.values(), ids=list(HEADS))
def head(request: pytest.FixtureRequest) -> HeadConfig:
    config: HeadConfig = request.param
    return config


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest, head: HeadConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    preset = preset_with(head, tmp_path_factory.mktemp("head") / "preset")
    limits = LIMITS if request.param in WITHOUT_COMPILER else ONE_SHAPE
    engines = build(request.param, limits, preset=preset)
    engines.engines[0].warm_up()
    yield engines.engines[0]
    for one in engines.all():
        one.close()


def assert_logits(engine: Engine, head: HeadConfig, outputs: Outputs, bound: float = FLOAT32) -> None:
    for shape in engine.signature.shapes:
        packed = random_packed(shape, seed=3)
        computed = engine.run(packed.batch, outputs)
        assert {name for name in Output if getattr(computed, name.value, None) is not None} == outputs
        for place, encoding in zip(packed.batch.placements, packed.encodings, strict=True):
            expected = expected_logits(head, encoding)
            found = computed.extract(place, encoding, outputs).get(head.output)
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= bound


def test_logits_are_the_heads(engine: Engine, head: HeadConfig) -> None:
    assert engine.signature.outputs == ENCODER_OUTPUTS | {head.output}
    for outputs in ({head.output}, {head.output, Output.CLS}, engine.signature.outputs):
        assert_logits(engine, head, frozenset(outputs))
    assert engine.compilations == 0


def test_logits_of_padding_are_zeros(engine: Engine, head: HeadConfig) -> None:
    if head.output is Output.LOGITS:
        pytest.skip("a sequence has one")
    packed = random_packed(engine.signature.shapes[-1], seed=3)
    logits = engine.run(packed.batch, frozenset({head.output})).token_logits
    assert logits is not None
    assert (logits[packed.batch.padding_mask == 0] == 0).all()
    assert (logits[packed.batch.padding_mask == 1] != 0).any()


def test_logits_that_are_not_requested_are_not_returned(engine: Engine) -> None:
    for outputs in (ENCODER_OUTPUTS, frozenset({Output.CLS}), frozenset({Output.MEAN})):
        computed = engine.run(random_packed(engine.signature.shapes[0]).batch, outputs)
        assert computed.logits is computed.token_logits is None


def test_the_output_of_another_head_is_rejected(engine: Engine, head: HeadConfig) -> None:
    [other] = HEAD_OUTPUTS - {head.output}
    with pytest.raises(ValueError, match="outputs must be among"):
        engine.run(random_packed(engine.signature.shapes[0]).batch, frozenset({other}))


@pytest.mark.parametrize("name", [name for name in ENGINES if name in WITHOUT_COMPILER])
def test_logits_in_bfloat16_are_close(name: str, head: HeadConfig, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not computes_in(name, "bfloat16"):
        pytest.skip("this CPU has no arithmetic for it")
    preset = preset_with(head, tmp_path_factory.mktemp("head") / "preset")
    engines = build(name, ONE_SHAPE, preset=preset, dtype="bfloat16")
    engines.engines[0].warm_up()
    assert_logits(engines.engines[0], head, frozenset({head.output}), BFLOAT16)
    if head.output is Output.LOGITS:  # scores are finer than bfloat16, so that close candidates differ
        logits = engines.engines[0].run(random_packed(SINGLE, seed=3).batch, frozenset({Output.LOGITS})).logits
        assert logits is not None
        assert (logits.view(np.uint32) & 0xFFFF != 0).mean() > 0.5
    for one in engines.all():
        one.close()
