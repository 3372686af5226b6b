"""`electra-serve compile`: its artifact is served, and other presets are rejected in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from electra_serve.cli.main import main
from electra_serve.engine.factory import LoadedModel, load_model
from electra_serve.engine.profiling import full_batch
from electra_serve.errors import EngineUnavailable, PresetError
from electra_serve.model.conversion import convert
from electra_serve.presets.artifact import ARTIFACT_FILE, DTYPES, GRAPH_FILE, GRAPH_WEIGHTS_FILE, ArtifactDtype
from electra_serve.presets.digest import sha256_of
from electra_serve.presets.tokenizers.loader import NO_FILES
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from electra_serve.tensors import ENCODER_OUTPUTS, BatchShape, Output
from tests.contract.heads import HEADS, preset_with
from tests.unit.presets.test_transformers_heads import checkpoint


def load(preset: Path | str, **settings: object) -> LoadedModel:
    batching = BatchingSettings(max_batch_tokens=512)
    return load_model(ModelSettings.model_validate({"preset": str(preset), **settings}), batching)


def mean(loaded: LoadedModel) -> np.ndarray:
    """Mean outputs of two rows, (2, H)."""
    output = loaded.engines[0].run(full_batch(BatchShape(2, 64)), frozenset({Output.MEAN})).mean_output
    assert output is not None
    return output[:, 0]  # the only sequence of each row


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "artifact"
    assert main(["compile", "electra_demo", str(folder)]) == 0
    return folder


@pytest.fixture
def artifact(compiled: Path, tmp_path: Path) -> Path:
    """An artifact that the test may damage."""
    return Path(shutil.copytree(compiled, tmp_path / "artifact"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_is_served_in_its_dtype_and_agrees(
    dtype: ArtifactDtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    assert main(["compile", "electra_demo", str(folder), "--dtype", dtype]) == 0
    said = capsys.readouterr().out
    assert "mean cosine" in said or "not measured" in said
    if "not measured" in said:
        pytest.skip(f"this CPU does not compute in {dtype}")
    loaded = load(folder)
    assert loaded.engines[0].signature.dtype == dtype
    assert loaded.tokenizer is not None
    expected = mean(load("electra_demo", engine="openvino"))
    cosines = (mean(loaded) * expected).sum(axis=1) / np.linalg.norm(mean(loaded), axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1)).min() >= {"float32": 0.999999, "bfloat16": 0.9995}.get(
        dtype, 0.999
    )


def test_reports_the_origin_of_its_weights(compiled: Path) -> None:
    preset = load(compiled).preset
    assert (preset.weights, preset.pooler, preset.source) == ("pretrained", "random", "local")
    assert preset.artifact is not None
    assert preset.artifact.preset == "electra_demo"


def test_texts_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts"
    texts.write_text("\n".join(f"line {number} of the texts" for number in range(1200)))
    assert main(["compile", "electra_demo", str(tmp_path / "made"), "--texts", str(texts)]) == 0
    assert "on 400 texts" in capsys.readouterr().out


def test_a_built_in_architecture_with_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made"
    assert main(["compile", "electra_small_discriminator_uncased_en", str(folder), "--random-weights"]) == 0
    assert "weights           random" in capsys.readouterr().out
    loaded = load(folder)
    assert loaded.preset.config.hidden_dim == 256
    assert loaded.tokenizer == NO_FILES
    drawn = load("electra_small_discriminator_uncased_en", load_weights=False, engine="openvino")
    assert np.abs(mean(loaded) - mean(drawn)).max() <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_preset", "made"], "preset must be"),
        (["electra_demo", "taken"], "does not exist yet, or is empty"),
        (["electra_demo", "made", "--texts", "few"], "at least 16 texts"),
        (["electra_demo", "made", "--texts", "missing"], "readable UTF-8"),
        (["artifact", "made"], "it is an artifact already"),
        (["electra_small_discriminator_uncased_en", "made", "--random-weights", "--texts", "few"], "no tokenizer"),
    ],
)
def test_what_cannot_be_compiled_is_rejected_in_a_line(
    arguments: list[str],
    message: str,
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(artifact.parent)
    (artifact.parent / "taken").mkdir()
    (artifact.parent / "taken/file").touch()
    (artifact.parent / "few").write_text("one\ntwo\n")
    preset, folder, *rest = arguments
    assert main(["compile", f"./{preset}" if preset == "artifact" else preset, folder, *rest]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (artifact.parent / "made").exists()


GOLDEN_FILE = "electra-serve.golden.json"
FILES = [GRAPH_FILE, GRAPH_WEIGHTS_FILE, GOLDEN_FILE, "config.json", "assets/tokenizer/vocabulary.txt"]


def rewrite(artifact: Path, **change: object) -> None:
    """Changes fields of the manifest."""
    path = artifact / ARTIFACT_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def digests(artifact: Path) -> dict[str, str]:
    files: dict[str, str] = json.loads((artifact / ARTIFACT_FILE).read_text())["files"]
    return files


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_is_rejected(artifact: Path, name: str) -> None:
    content = bytearray((artifact / name).read_bytes())
    content[len(content) // 2] ^= 1
    (artifact / name).write_bytes(content)
    with pytest.raises(PresetError, match="another SHA-256: compile electra_demo again"):
        load(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_rejected(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    with pytest.raises(PresetError, match="is missing: compile electra_demo again"):
        load(artifact)


def test_a_file_that_was_added_is_rejected(artifact: Path) -> None:
    (artifact / "special_tokens_map.json").write_text("{}")
    with pytest.raises(PresetError, match="tokens_map\\.json' was added: compile electra_demo again"):
        load(artifact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format must be 3"),
        ({"engine": "numpy"}, "malformed"),
        ({"engine": 5}, "malformed"),
        ({"dtype": "float8"}, "malformed"),
        ({"weights": "good"}, "malformed"),
        ({"weights": []}, "malformed"),
        ({"preset": None}, "malformed"),
        ({"made_by": {"openvino": 1}}, "malformed"),
        ({"files": {}}, "was added"),
        ({"files": [1]}, "malformed"),
        ({"files": {"../config.json": "0"}}, "was added|is missing"),
        ({"extra": 1}, "must have the fields that `electra-serve compile` writes"),
    ],
)
def test_a_manifest_that_was_changed_is_rejected(artifact: Path, change: dict[str, object], message: str) -> None:
    rewrite(artifact, **change)
    with pytest.raises(PresetError, match=f"({message}).*: compile (electra_demo|the preset) again"):
        load(artifact)


def test_a_pin_holds_what_the_manifest_says_too(artifact: Path) -> None:
    sha256 = load(artifact).preset.sha256
    rewrite(artifact, weights="pretrained")
    with pytest.raises(PresetError, match="its sha256 must be"):
        load(artifact, sha256=sha256)


def test_a_graph_that_computes_something_else_is_rejected(artifact: Path) -> None:
    golden = artifact / GOLDEN_FILE
    content = json.loads(golden.read_text())
    golden.write_text(json.dumps({**content, "mean_output": [-value for value in content["mean_output"]]}))
    rewrite(artifact, files={**digests(artifact), GOLDEN_FILE: sha256_of(golden)})
    with pytest.raises(PresetError, match=r"the output mean_output must be within .* compile electra_demo again"):
        load(artifact)


def test_a_golden_vector_that_cannot_be_read_is_rejected(artifact: Path) -> None:
    golden = artifact / GOLDEN_FILE
    golden.write_text("{}")
    rewrite(artifact, files={**digests(artifact), GOLDEN_FILE: sha256_of(golden)})
    with pytest.raises(PresetError, match=r"it must hold `mean_output` and `dtype`; compile electra_demo again"):
        load(artifact)


def test_a_manifest_that_names_no_graph_is_rejected(artifact: Path) -> None:
    (artifact / GRAPH_FILE).unlink()
    rewrite(artifact, files={name: sha256 for name, sha256 in digests(artifact).items() if name != GRAPH_FILE})
    with pytest.raises(PresetError, match=r"files must name model\.xml; it does not: compile electra_demo again"):
        load(artifact)


def test_a_graph_that_cannot_be_read_is_rejected(artifact: Path) -> None:
    (artifact / GRAPH_FILE).write_text("<net/>")
    rewrite(artifact, files={**digests(artifact), GRAPH_FILE: sha256_of(artifact / GRAPH_FILE)})
    with pytest.raises(PresetError, match=r"cannot be read by OpenVINO .*; compile the preset again"):
        load(artifact)


def test_another_engine_rejects_it(compiled: Path) -> None:
    with pytest.raises(EngineUnavailable, match="compiled for; got tensorflow"):
        load(compiled, engine="tensorflow")


def test_it_has_its_weights(compiled: Path) -> None:
    with pytest.raises(PresetError, match="load_weights"):
        load(compiled, load_weights=False)


def test_what_was_made_is_kept_where_that_is_asked(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (artifact / ARTIFACT_FILE).stat().st_mtime_ns
    assert main(["compile", "electra_demo", str(artifact), "--keep"]) == 0
    assert "exists already" in capsys.readouterr().out
    assert (artifact / ARTIFACT_FILE).stat().st_mtime_ns == before
    assert main(["compile", "electra_demo", str(artifact)]) == 1


def test_another_dtype_is_not_what_was_made(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "electra_demo", str(artifact), "--keep", "--dtype", "bfloat16"]) == 1
    assert str(artifact) in capsys.readouterr().err


def test_a_damaged_artifact_is_reported(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (artifact / GRAPH_FILE).write_text("")
    assert main(["compile", "electra_demo", str(artifact), "--keep"]) == 1
    assert GRAPH_FILE in capsys.readouterr().err


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", ["keras", "transformers"])
def test_an_artifact_has_its_head(
    format_: str, dtype: ArtifactDtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = HEADS["tokens" if format_ == "keras" else "sequences, ELECTRA's"]
    preset = preset_with(head, tmp_path / "preset")
    if format_ == "transformers":
        preset = convert(preset, tmp_path / "checkpoint", "transformers")
    assert main(["compile", str(preset.path), str(tmp_path / "made"), "--dtype", dtype]) == 0
    said = capsys.readouterr().out
    assert f"head              {head.kind}" in said
    if "not measured" in said:
        pytest.skip(f"this CPU does not compute in {dtype}")
    assert "same label" in said
    found, expected = load(tmp_path / "made"), load(str(preset.path), engine="openvino", dtype=dtype)
    assert found.preset.head == head
    np.testing.assert_array_equal(logits(found), logits(expected))
    alone = load(tmp_path / "made", head="none")
    assert (alone.preset.head, alone.engines[0].signature.outputs) == (None, ENCODER_OUTPUTS)
    np.testing.assert_array_equal(mean(alone), mean(found))


def test_a_head_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = preset_with(HEADS["questions"], tmp_path / "preset")
    made = ["compile", str(preset.path), str(tmp_path / "made"), "--head=none"]
    assert main(made) == 0
    assert "head              none" in capsys.readouterr().out
    assert load(tmp_path / "made").preset.head is None
    assert main([*made, "--keep"]) == 0
    assert "exists already" in capsys.readouterr().out
    assert main([*made[:3], "--keep"]) == 1  # with the head it is another artifact
    assert "does not exist yet, or is empty" in capsys.readouterr().err


def logits(loaded: LoadedModel) -> np.ndarray:
    assert loaded.preset.head is not None
    output = loaded.preset.head.output
    found = loaded.engines[0].run(full_batch(BatchShape(2, 64)), frozenset({output}))
    return np.asarray(getattr(found, output.value))


def test_a_head_that_cannot_be_served_is_rejected_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(tmp_path / "odd", "ElectraForTokenClassification", architectures=["ElectraCRF"])
    with pytest.raises(PresetError, match=r"odd: the head must be of .*; got ElectraCRF; `head: none` serves"):
        load(folder, engine="openvino")
    assert load(folder, engine="openvino", head="none").preset.head is None
    assert main(["compile", str(folder), str(tmp_path / "made")]) == 1
    assert "got ElectraCRF" in capsys.readouterr().err
    assert main(["compile", str(folder), str(tmp_path / "made"), "--head=none"]) == 0
    assert load(tmp_path / "made").preset.head_name == "none"
    assert main(["presets", "show", str(folder)]) == 0
    assert "got ElectraCRF" in capsys.readouterr().out
