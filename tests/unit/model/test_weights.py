"""Invalid weight files are rejected, unusual valid ones are accepted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from electra_serve.errors import PresetError
from electra_serve.model import ElectraBackbone
from electra_serve.model.loading import load_backbone
from electra_serve.presets.sources import resolve_preset
from tests.data.reader import GOLDEN, read_case

KERNEL = "layers/transformer_encoder_1/_feedforward_output_dense/vars/0"
WEIGHTS = "model.weights.h5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "below", tmp_path / "preset"))


def edit(folder: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(folder / WEIGHTS, "r+") as file:
        change(file)


def replace(folder: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    def change(file: h5py.File) -> None:
        del file[KERNEL]
        file[KERNEL] = values

    edit(folder, change)


def rejection(folder: Path) -> str:
    with pytest.raises(PresetError) as caught:
        ElectraBackbone.from_preset(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def drop(file: h5py.File) -> None:
    del file[KERNEL]


def poke(value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[KERNEL][3, 2] = value

    return change


def soft_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/layers/transformer_encoder/_feedforward_output_dense/vars/0")


def external_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink(str(GOLDEN / "below" / WEIGHTS), KERNEL)


def external_storage(file: h5py.File) -> None:
    shape = file[KERNEL].shape
    del file[KERNEL]
    file.create_dataset(KERNEL, shape, "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(file[KERNEL].shape, "f4")
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, f"below|preset: the weights must have {KERNEL}; it is missing"),
        (soft_link, f"the weights must have {KERNEL}; it is missing"),
        (external_link, f"the weights must have {KERNEL}; it is missing"),
        (external_storage, f"{KERNEL} must be stored in the weight file itself"),
        (virtual, f"{KERNEL} must be stored in the weight file itself"),
        (poke(np.nan), f"{KERNEL} must be finite"),
        (poke(np.inf), f"{KERNEL} must be finite"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_dataset_is_rejected(folder: Path, change: Callable[[h5py.File], None], message: str) -> None:
    edit(folder, change)
    assert message.split("|")[-1] in rejection(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((16, 32), np.float32), "must have shape (32, 16); it has (16, 32)"),
        (np.zeros((32, 16), np.int32), "must hold floating-point numbers; it holds int32"),
        (np.zeros((32, 16), "S4"), "must hold floating-point numbers; it holds |S4"),
    ],
    ids=["shape", "integers", "strings"],
)
def test_wrong_values_are_rejected(
    folder: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str
) -> None:
    replace(folder, values)
    assert f"{KERNEL} {message}" in rejection(folder)


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: b"not HDF5 at all, but long enough" * 1000,
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: b"\0" * len(whole),
    ],
    ids=["text", "half", "one byte less", "zeros"],
)
def test_a_file_that_is_not_whole_hdf5_is_rejected(folder: Path, content: Callable[[bytes], bytes]) -> None:
    (folder / WEIGHTS).write_bytes(content((folder / WEIGHTS).read_bytes()))
    assert "model.weights.h5: must be a whole HDF5 file" in rejection(folder)


def test_a_damaged_chunk_is_rejected(folder: Path) -> None:
    offsets: list[int] = []

    def compress(file: h5py.File) -> None:
        values = file[KERNEL][()]
        del file[KERNEL]
        dataset = file.create_dataset(KERNEL, data=values, compression="gzip")
        file.flush()
        offsets.append(dataset.id.get_chunk_info(0).byte_offset)

    edit(folder, compress)
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(offsets[0])
        file.write(b"\xff" * 64)
    assert f"{KERNEL} cannot be read; the file is damaged" in rejection(folder)


def test_a_file_too_small_for_the_config_is_rejected_before_anything_is_built(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["config"] |= {"vocab_size": 10**6, "embedding_dim": 16384}
    (folder / "config.json").write_text(json.dumps(config))
    assert "parameters take" in rejection(folder)


def test_layers_that_the_config_does_not_have_are_rejected(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["config"]["num_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    assert "the weights must be of 1 layers, as the config says; they are of 2" in rejection(folder)


def test_a_shard_without_its_layer_is_rejected(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "sharded", tmp_path / "preset"))
    shutil.copy(folder / "model_00000.weights.h5", folder / "model_00001.weights.h5")
    assert "it is missing" in rejection(folder)


def test_half_precision_files_load(folder: Path) -> None:
    exact, _ = read_case("below", "everything")
    expected = ElectraBackbone.from_preset(str(folder))(exact)
    with h5py.File(folder / WEIGHTS) as file:
        values = file[KERNEL][()]
    replace(folder, values.astype(np.float16))
    found = ElectraBackbone.from_preset(str(folder))(exact)
    np.testing.assert_allclose(found.sequence_output, expected.sequence_output, atol=0.02)


def test_a_bfloat16_model_saves_and_loads(tmp_path: Path) -> None:
    inputs, _ = read_case("below", "everything")
    saved = ElectraBackbone.from_preset(str(GOLDEN / "below"), dtype="bfloat16")
    saved.save_to_preset(tmp_path)
    loaded = ElectraBackbone.from_preset(str(tmp_path), dtype="bfloat16")
    for before, after in zip(saved.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.isfinite(np.asarray(loaded(inputs)["pooled_output"], np.float32)).all()


def test_the_paths_name_every_weight_once() -> None:
    backbone = ElectraBackbone(10, 2, 2, 8, 4, 16)
    assert sorted(map(id, backbone.weights_by_path().values())) == sorted(map(id, backbone.weights))


def test_a_model_without_weights_gets_the_same_at_every_load() -> None:
    preset = resolve_preset(str(GOLDEN / "below"), load_weights=False)
    first, again = (load_backbone(preset, dtype="float32", load_weights=False).get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(a.any() for a in first)
