"""`electra-serve presets convert`, without the process around it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from electra_serve.cli.convert import add_convert
from electra_serve.cli.main import main
from electra_serve.errors import PresetError
from electra_serve.presets.sources import resolve_preset
from tests.data.reader import TRANSFORMERS


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_convert(parser)
    flags = parser.parse_args(arguments)
    code: int = flags.run(flags)
    return code


def test_it_writes_the_folder_and_reports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    destination = tmp_path / "keras"
    assert run(str(TRANSFORMERS / "tanh"), str(destination), "--to", "keras") == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    written = resolve_preset(str(destination))
    assert written.format == "keras"
    assert printed == {
        "written": str(destination),
        "format": "keras",
        "parameters": f"{written.config.parameters:,}",
        "weights": "pretrained",
        "pooler": "random",
        "head": "none",
        "activation": "gelu_tanh",
        "tokenizer": "no",
        "revision": written.revision,
    }


def test_an_artifact_is_rejected(tmp_path: Path) -> None:
    assert main(["compile", str(TRANSFORMERS / "tanh"), str(tmp_path / "artifact")]) == 0
    with pytest.raises(PresetError, match="is a compiled artifact without weights; use tanh"):
        run(str(tmp_path / "artifact"), str(tmp_path / "keras"), "--to", "keras")


def test_an_unknown_source_is_rejected_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="got 'nowhere'"):
        run("nowhere", str(tmp_path / "keras"), "--to", "keras")
    assert not (tmp_path / "keras").exists()


@pytest.mark.parametrize("arguments", [("a", "b"), ("a", "b", "--to", "onnx"), ("a", "--to", "keras")])
def test_wrong_flags_are_a_usage_error(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert "usage" in capsys.readouterr().err
