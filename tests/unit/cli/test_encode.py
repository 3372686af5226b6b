"""`electra-serve encode`: its flags, its report, its exit codes."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from electra_serve.bulk import job as jobs
from electra_serve.bulk.job import Interrupted
from electra_serve.bulk.windows import SHARD_ROWS
from electra_serve.cli import encode
from electra_serve.cli.main import main
from electra_serve.engine.factory import LoadedModel
from electra_serve.settings.schema import BatchingSettings, ModelSettings
from tests.unit.bulk.support import known_vector, load, vectors, write_table

ROWS = ["a text", "and another one", "third"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_table(tmp_path / "in.jsonl", {"text": ROWS, "id": [7, 8, 9]})


@pytest.fixture
def no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is that of other tests too."""
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)


def call(source: Path, output: Path, *flags: str, model: str = "electra_demo") -> int:
    return main(["encode", str(source), str(output), "--model", model, *flags], load=load)


@pytest.mark.usefixtures("no_interval")
def test_it_encodes_and_reports(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.parquet"
    assert call(source, output, "--id-column=id") == 0
    table = pq.read_table(output)
    assert table["id"].to_pylist() == [7, 8, 9]
    assert np.allclose(vectors(table), [known_vector(text) for text in ROWS])
    assert capsys.readouterr().out.startswith(f"{output}: 3 rows, 12 tokens, ")
    assert call(source, output, "--id-column=id") == 0
    assert capsys.readouterr().out == f"{output} is complete already: 3 rows\n"


@pytest.mark.usefixtures("no_interval")
def test_it_reports_rejected_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_table(tmp_path / "in.jsonl", {"text": ["a", None]})
    assert call(source, tmp_path / "out") == 0
    assert f"2 rows (1 rejected, see {tmp_path}/out.rejects.jsonl)" in capsys.readouterr().out


@pytest.mark.usefixtures("no_interval")
def test_flags_become_a_job(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[jobs.Job] = []

    def note(job: jobs.Job, *_: Any, **__: Any) -> None:
        given.append(job)
        raise Interrupted("interrupted", signal.SIGTERM)

    monkeypatch.setattr(jobs, "run_job", note)
    flags = [
        *("--input-format=jsonl", "--output-format=arrow", "--token-ids-column=t", "--segment-ids-column=s"),
        *("--padding-mask-column=m", "--id-column=i", "--truncate", "--strict", "--outputs=embedding, cls_output"),
        *("--dtype=float16", "--pooling=cls", "--normalize", "--prompt-name=query", "--top-k=3", "--shard-rows=5"),
    ]
    assert call(source, tmp_path / "out", *flags) == 128 + signal.SIGTERM
    [job] = given
    assert (job.input, job.output) == (str(source), tmp_path / "out")
    assert (job.input_format, job.output_format, job.strict, job.limits.shard_rows) == ("jsonl", "arrow", True, 5)
    assert job.columns.needed == ("t", "s", "m", "i")
    options = {**job.options.describe(), "truncation": str(job.options.truncation)}
    assert options == {
        "outputs": ["embedding", "cls_output"],
        "dtype": "float16",
        "truncation": "longest_first",
        "prompt_name": "query",
        "top_k": 3,
    }
    assert job.model.embedding is not None
    assert (job.model.embedding.pooling, job.model.embedding.normalize) == ("cls", True)


def test_the_model_is_a_preset_or_a_name_or_settings(source: Path, tmp_path: Path) -> None:
    loaded: list[ModelSettings] = []

    def note(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        loaded.append(settings)
        return load(settings, batching)

    config = tmp_path / "config.yaml"
    config.write_text("models: [{preset: electra_demo, name: mine, dtype: bfloat16, embedding: {pooling: cls}}]\n")
    models = ["mine", "./other", '{"preset": "./third", "engine": "jax"}']
    for index, model in enumerate(models):
        arguments = [str(source), str(tmp_path / f"{index}"), "--model", model, f"--config={config}", "--no-normalize"]
        assert main(["encode", *arguments], load=note) == 0
    assert [settings.preset for settings in loaded] == ["electra_demo", "./other", "./third"]
    assert [settings.engine for settings in loaded] == ["auto", "auto", "jax"]
    assert loaded[0].dtype == "bfloat16"
    first, second, _ = (settings.embedding for settings in loaded)
    assert first is not None
    assert second is not None
    assert (first.pooling, first.normalize, second.pooling) == ("cls", False, None)


@pytest.mark.usefixtures("no_interval")
@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--text-column=x"], 3, "the input must have a column x; it has id, text"),
        (["--normalize", "--outputs=cls_output"], 3, "--normalize applies to the output embedding"),
        (["--outputs=labels"], 3, "outputs of electra_demo, whose head is none, must be among"),
        (["--strict", "--text-column=id"], 3, "row 0 of "),
        (["--model="], 1, "models"),
        (["--rest.port=-1"], 1, "rest.port"),
    ],
)
def test_a_fault_is_one_line_and_a_code(
    flags: list[str], code: int, message: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(source, tmp_path / "out", *flags) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("electra-serve: ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("flags", [["--dtype=int8"], ["--truncate=sideways"], ["--pooling=max"], ["more"]])
def test_wrong_arguments_have_code_2(flags: list[str], source: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        call(source, tmp_path / "out", *flags)
    assert ended.value.code == 2


@pytest.mark.parametrize("package", ["pyarrow", "tqdm"])
def test_a_missing_extra_is_one_line(
    package: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("electra_serve.bulk", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # an import then fails
    assert call(source, tmp_path / "out") == 1
    expected = "electra-serve: encode needs the extra `bulk`: pip install 'electra-serve[bulk]'\n"
    assert capsys.readouterr().err == expected


def test_choices_of_the_flags_are_those_of_the_package() -> None:
    inputs, sinks = (importlib.import_module(f"electra_serve.bulk.{name}") for name in ("inputs", "sinks"))
    assert encode.INPUT_FORMATS == inputs.FORMATS
    assert encode.OUTPUT_FORMATS == sinks.OUTPUT_FORMATS
    assert encode.SHARD_ROWS == SHARD_ROWS


@pytest.mark.usefixtures("no_interval")
def test_log_lines_are_json_when_no_terminal_reads_them(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(source, tmp_path / "out", "--log.format=auto") == 0
    assert json.loads(capsys.readouterr().err.splitlines()[0])["event"] == "model loaded"
