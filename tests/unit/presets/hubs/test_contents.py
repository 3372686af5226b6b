"""Each kind of file, whole and spoiled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra_serve.errors import PresetError
from electra_serve.presets.hubs.contents import check_content
from tests.data.reader import GOLDEN

HDF5 = (GOLDEN / "below" / "model.weights.h5").read_bytes()


def safetensors(data: bytes, **tensors: object) -> bytes:
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    return len(header).to_bytes(8, "little") + header + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{}"),
        ("tokenizer.json", b'{"a": "' + b"x" * (5 * 2**20) + b'"}'),
        ("vocab.txt", "[PAD]\né".encode()),
        ("model.weights.h5", HDF5),
        ("model.safetensors", safetensors(b"\0" * 8, a=TENSOR)),
    ],
)
def test_a_whole_file_is_taken(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    check_content(tmp_path / "file", name)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", b"", "must not be empty"),
        ("model.weights.h5", b"", "must not be empty"),
        ("model.weights.h5", b"\n <HTML>Sign in", "an HTML page came"),
        ("vocab.txt", b"<!doctype html>", "an HTML page came"),
        ("config.json", b'{"a": ', "malformed or cut"),
        ("config.json", b"[]", "must hold a JSON object; it holds a list"),
        ("config.json", b"[" * 100_000, "malformed or cut"),
        ("config.json", b" " * (5 * 2**20), "must have at most"),
        ("vocab.txt", b"\xff\xfe", "must be text in UTF-8"),
        ("model.weights.h5", HDF5[:-1], "must be a whole HDF5 file"),
        ("model.weights.h5", b"x" * 5000, "must be a whole HDF5 file"),
        ("model.safetensors", safetensors(b"\0" * 7, a=TENSOR), "must be a whole safetensors file"),
        ("model.safetensors", b"\xff" * 64, "it has no such header"),
        ("model.safetensors", safetensors(b"", a=3), "it has no such header"),
        ("model.safetensors", (3).to_bytes(8, "little") + b"[1]", "it has no such header"),
    ],
)
def test_a_spoiled_file_is_rejected(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(PresetError, match=says):
        check_content(tmp_path / "file", name)
