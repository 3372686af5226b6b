from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from electra_serve.presets.sources import resolve_preset
from tools.gpu_kit.__main__ import FILES, project_files
from tools.gpu_kit.plan import STAGES, TOTAL_S
from tools.gpu_kit.records import Recorder, read_records
from tools.gpu_kit.report import GOALS, Results, StageResult, render
from tools.gpu_kit.stages.models import GPU_SIZES, validated
from tools.gpu_kit.wheels import ROOT


def results(path: Path) -> Results:
    return Results("gpu", {"cores": 16}, [StageResult("offline", "passed", 110.0, 9.0, list(read_records(path)))])


def test_every_listed_file_exists() -> None:
    assert [name for name in FILES if not (ROOT / name).is_file()] == []


def test_every_import_of_the_contract_suite_is_in_the_kit() -> None:
    kit = {path.relative_to(ROOT).with_suffix("") for path in project_files()}
    missing = [
        (path.name, module)
        for path in project_files()
        if path.is_relative_to(ROOT / "tests")
        for module in _imports(path)
        if module.split(".")[0] in {"benchmarks", "tests", "tools"}
        and not {Path(*module.split(".")), Path(*module.split("."), "__init__")} & kit
    ]
    assert missing == []


def _imports(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_all_stages_end_within_nine_minutes() -> None:
    assert sum(stage.limit_s for stage in STAGES) <= TOTAL_S <= 540


def test_records_of_a_stage_that_was_cut_off_are_read(tmp_path: Path) -> None:
    recorder = Recorder("offline", quick=True, path=tmp_path / "records")
    recorder.check("it holds", passed=True)
    recorder.add("p50_ms", [], clients=1)
    recorder.add("p50_ms", [1.0, 3.0, 2.0], clients=1)
    recorder.skip("torch", RuntimeError("not here"))
    recorder.check("this | does not", passed=False, detail="because")
    with recorder.path.open("a") as file:
        file.write(json.dumps({"check": "half"})[:9])
    assert recorder.failed
    report = render(results(recorder.path))
    assert "| it holds | yes |" in report
    assert "| this / does not | **no** | because |" in report
    assert "| p50_ms | clients 1 | 2 | 1 | 3 |" in report
    assert "Not measured: torch: not here" in report
    assert "half" not in report


def test_goals_are_computed_from_measurements(tmp_path: Path) -> None:
    recorder = Recorder("offline", quick=True, path=tmp_path / "records")
    assert [goal.number(results(recorder.path)) for goal in GOALS] == [None] * len(GOALS)
    assert "not measured" in render(results(recorder.path))
    recorder.add("product_gflop_per_s", [600.0, 800.0], product="a")
    recorder.add("product_gflop_per_s", [700.0], product="b")
    of_base = {"size": "base", "against": "torch SDPA"}
    for encoder, factor in (("torch SDPA", 1.0), ("jax engine", 2.0)):
        recorder.add("tokens_per_s", [1e6], encoder=encoder, shape="64x128", **of_base)
        recorder.add("tokens_per_s", [factor], encoder=encoder, order="windows", **of_base)
        recorder.add("gflop_per_s", [300 * factor - 200], encoder=encoder, shape="64x128", **of_base)
    for cache, seconds in (("warm", 20.0), ("none", 100.0)):
        recorder.add("ready_s", [seconds], size="base", cache=cache)
    recorder.add("largest_difference", [2e-6], size="base", dtype="float32")
    recorder.add("least_cosine", [0.9999], size="base", dtype="bfloat16")
    found = [goal.number(results(recorder.path)) for goal in GOALS]
    assert found == [2.0, 0.5, 20.0, 100.0, 2e-6, 0.9999]
    reached = [goal.reached(number) for goal, number in zip(GOALS, found, strict=True) if number is not None]
    assert reached == [True, True, True, False, True, True]


@pytest.mark.parametrize("size", GPU_SIZES)
def test_models_of_a_gpu_need_no_files(size: str) -> None:
    settings = validated(size, "gpu", "bfloat16")
    assert (settings.name, settings.device, settings.engine) == (size, "gpu:0", "jax")
    assert resolve_preset(settings.preset, load_weights=settings.load_weights).path is None
