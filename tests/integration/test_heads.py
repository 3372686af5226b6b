"""Checkpoints with heads, served by the real process to the typed clients of both transports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import httpx
import numpy as np
import pytest

from electra_serve import ElectraClient, GrpcElectraClient
from electra_serve.client import EncodeResponse, ModelInfo
from electra_serve.errors import InvalidInput
from electra_serve.model.loading import load_encoder
from electra_serve.presets.sources import resolve_preset
from electra_serve.tensors import Output
from tests.data.reader import TRANSFORMERS
from tests.integration.process import ServiceProcess, start
from tests.packing import compute_rows, pack_rows

IDS: Final = [[2, 11, 25, 3], [2, 7, 3], [2, 50, 3, 4, 5, 6, 7, 3]]
CLASSIFIER, DETECTOR, ALONE, GENERATOR = "classifier", "discriminator", "alone", "generator"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    alone = json.dumps({"preset": str(TRANSFORMERS / CLASSIFIER), "name": ALONE, "head": "none"})
    models = [str(TRANSFORMERS / name) for name in (CLASSIFIER, DETECTOR, GENERATOR)]
    flags = [f"--models={model}" for model in (*models, alone)]
    with start(tmp_path_factory.mktemp("heads"), *flags) as process:
        process.wait_ready()
        yield process


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, served: ServiceProcess) -> Iterator[ElectraClient | GrpcElectraClient]:
    made = ElectraClient(served.url) if request.param == "rest" else GrpcElectraClient(served.target)
    with made as opened:
        yield opened


def encode(client: ElectraClient | GrpcElectraClient, model: str, output: str) -> EncodeResponse:
    return client.encode(token_ids=IDS, model=model, outputs=[output])


def expected(name: str, row: list[int], output: Output) -> np.ndarray:
    """The Keras model's own logits."""
    encoder = load_encoder(resolve_preset(str(TRANSFORMERS / name)), dtype="float32", load_weights=True)
    ids = np.array([row])
    batch = pack_rows(ids, ids * 0, ids * 0 + 1)
    return np.asarray(compute_rows(encoder.backbone, batch, frozenset({output}), encoder.head)[output][0])


def test_logits_of_sequences(client: ElectraClient | GrpcElectraClient) -> None:
    logits = encode(client, CLASSIFIER, "logits").logits
    assert logits is not None
    assert logits.shape == (len(IDS), 2)
    for row, found in zip(IDS, logits, strict=True):
        assert np.abs(found - expected(CLASSIFIER, row, Output.LOGITS)).max() <= 1e-5


def test_logits_of_positions(client: ElectraClient | GrpcElectraClient) -> None:
    logits = encode(client, DETECTOR, "token_logits").token_logits
    assert logits is not None
    for row, found in zip(IDS, logits, strict=True):
        assert found.shape == (len(row), 1)
        assert np.abs(found - expected(DETECTOR, row, Output.TOKEN_LOGITS)).max() <= 1e-5


@pytest.mark.parametrize(
    ("model", "output"), [(ALONE, "logits"), (GENERATOR, "token_logits"), (CLASSIFIER, "token_logits")]
)
def test_other_outputs_are_rejected(client: ElectraClient | GrpcElectraClient, model: str, output: str) -> None:
    with pytest.raises(InvalidInput, match=rf"must be among sequence_output, .*; got {output}") as caught:
        encode(client, model, output)
    assert caught.value.field == "outputs"


def test_models_are_described_with_their_heads(client: ElectraClient | GrpcElectraClient) -> None:
    models: dict[str, ModelInfo] = {model.name: model for model in client.models()}
    described = {name: (model.head, model.labels, model.activation) for name, model in models.items()}
    assert described == {
        CLASSIFIER: ("sequence_classification", ("LABEL_0", "LABEL_1"), "softmax"),
        DETECTOR: ("replaced_token_detection", ("replaced",), "sigmoid"),
        ALONE: ("none", (), None),
        GENERATOR: ("masked_lm (not served)", (), None),
    }
    assert (models[CLASSIFIER].parameters or 0) - (models[ALONE].parameters or 0) == 17 * 16 + 17 * 2


def test_nothing_is_compiled_after_warm_up(served: ServiceProcess) -> None:
    lines = httpx.get(f"{served.url}/metrics").text.splitlines()
    compilations = [line for line in lines if line.startswith("electra_compilations_after_warm_up{")]
    assert len(compilations) == 4
    assert all(line.endswith(" 0.0") for line in compilations)
