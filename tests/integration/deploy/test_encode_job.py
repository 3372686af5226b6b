"""The Indexed Job: its manifest fits the command, and its pods, as processes, encode every row exactly once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra_serve.errors import BulkConflict, StartupError
from tests.integration.deploy.manifests import kubectl, one, pod, serving
from tests.integration.process import ROOT
from tests.waiting import wait_until

OVERLAY: Final = "overlays/encode"
FILES: Final = 5
ROWS: Final = [f"row {row} of a corpus" + " with some more words" * (row * 7 % 13) for row in range(900)]
NULLS: Final = {5, 300, 899}
KILLED_INDEX: Final = 1
LIMIT_S: Final = 300.0


def job() -> dict[str, Any]:
    return dict(one(OVERLAY, "Job")["spec"])


def exit_codes(action: str) -> list[int]:
    """Codes of the container that the pod failure policy maps to an action."""
    rules = [rule["onExitCodes"] for rule in job()["podFailurePolicy"]["rules"] if rule["action"] == action]
    assert {(rule["containerName"], rule["operator"]) for rule in rules} == {(serving(OVERLAY)["name"], "In")}
    return [code for rule in rules for code in rule["values"]]


def test_a_failed_index_is_retried_alone_unless_a_retry_fails_again() -> None:
    spec = job()
    assert spec["completionMode"] == "Indexed"
    assert spec["backoffLimitPerIndex"] >= 1
    assert spec["podReplacementPolicy"] == "Failed"  # two pods must not write one output
    assert pod(OVERLAY)["restartPolicy"] == "Never"  # backoffLimitPerIndex requires it
    assert exit_codes("FailIndex") == [BulkConflict.exit_code]
    assert StartupError.exit_code not in exit_codes("FailIndex") + exit_codes("FailJob")
    first, *_ = spec["podFailurePolicy"]["rules"]
    assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_the_shards_are_as_many_as_the_indexes(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "deploy/kubernetes/overlays/encode", tmp_path / "encode")
    manifest = folder / "job.yaml"
    manifest.write_text(manifest.read_text().replace("completions: 3", "completions: 12"))
    built = subprocess.check_output([kubectl(), "kustomize", folder], text=True, timeout=60)
    assert "completions: 12" in built
    assert 'electra-serve/shards: "12"' in built


def test_the_service_selects_none_of_its_pods() -> None:
    labels = one(OVERLAY, "Job")["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": "electra-serve-encode"}
    assert one(OVERLAY, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert not one(OVERLAY, "NetworkPolicy")["spec"].get("ingress")


def test_input_and_model_are_read_only_and_the_preset_is_pinned() -> None:
    mounts = {mount["mountPath"]: bool(mount.get("readOnly")) for mount in serving(OVERLAY)["volumeMounts"]}
    assert mounts == {"/input": True, "/output": False, "/models": True, "/tmp": False}
    [init] = pod(OVERLAY)["initContainers"]
    handle = init["args"][-1]
    assert re.fullmatch(r"kaggle://[\w/]+/\d+", handle)
    assert f"--model={handle}" in serving(OVERLAY)["args"]
    assert pod(OVERLAY)["automountServiceAccountToken"] is False
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod(OVERLAY)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {one(OVERLAY, "PersistentVolumeClaim")["metadata"]["name"]}


@dataclass(eq=False)
class Cluster:
    """Runs the container of the Job as processes: paths of the volume lead into a folder."""

    volume: Path
    model: str = "electra_demo"
    completions: int = 3
    flags: Sequence[str] = ("--shard-rows=20", "--text-column=words")
    runs: list[tuple[int, int]] = field(default_factory=list)  # index and exit code of each process

    def command(self, index: int) -> tuple[list[str], Mapping[str, str]]:
        """Returns the arguments and variables of an index, as a kubelet expands them."""
        container = serving(OVERLAY)
        annotations = {"electra-serve/shards": str(self.completions)}
        variables = {"JOB_COMPLETION_INDEX": str(index)}
        for variable in container["env"]:
            name = variable["name"]
            if "value" in variable:
                variables[name] = variable["value"]
            else:
                variables[name] = annotations[variable["valueFrom"]["fieldRef"]["fieldPath"].split("'")[1]]
        arguments = [self._expand(argument, variables) for argument in container["args"]]
        variables["ELECTRA_HUB__CACHE_DIR"] = str(self.volume / "cache")
        return [*arguments, *self.flags], variables

    def start(self, index: int) -> subprocess.Popen[str]:
        arguments, variables = self.command(index)
        return subprocess.Popen(
            [sys.executable, "-m", "electra_serve", *arguments],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, index: int) -> str:
        """Runs the pods of an index as the controller does, and returns the last line of standard error.

        A code of the pod failure policy fails the index; others are retried up to the limit.
        """
        last = set(exit_codes("FailIndex") + exit_codes("FailJob"))
        line = ""
        for _ in range(1 + job()["backoffLimitPerIndex"]):
            process = self.start(index)
            _, errors = process.communicate(timeout=LIMIT_S)
            self.runs.append((index, process.returncode))
            line = errors.strip().rpartition("\n")[2]
            if process.returncode == 0 or process.returncode in last:
                break
        return line

    def output(self, index: int) -> Path:
        return self.volume / "output" / f"shard-{index}"

    def _expand(self, argument: str, variables: Mapping[str, str]) -> str:
        expanded = re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], argument)
        if expanded.startswith("--model="):
            return f"--model={self.model}"
        return re.sub(r"^/(input|output)/", rf"{self.volume}/\1/", expanded)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
    ends = [len(ROWS) * number // FILES for number in range(FILES + 1)]
    for number in range(FILES):
        rows = range(ends[number], ends[number + 1])
        words = [None if row in NULLS else ROWS[row] for row in rows]
        pq.write_table(pa.table({"words": pa.array(words, pa.string())}), tmp_path / f"input/{number}.parquet")
    return Cluster(tmp_path)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def test_every_row_is_encoded_exactly_once_although_a_pod_is_killed(cluster: Cluster) -> None:
    killed = cluster.start(KILLED_INDEX)
    records = cluster.output(KILLED_INDEX).with_name(f"shard-{KILLED_INDEX}.partial") / "records"
    try:
        wait_until(lambda: len(list(records.glob("*.json"))) >= 3, LIMIT_S)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not cluster.output(KILLED_INDEX).exists()
    begun = {path.name: path.stat().st_mtime_ns for path in records.glob("*.json")}
    with ThreadPoolExecutor(cluster.completions) as pods:
        lines = list(pods.map(cluster.finish, range(cluster.completions)))
    assert sorted(cluster.runs) == [(0, 0), (1, 0), (2, 0)], lines
    manifests = [
        json.loads(cluster.output(index).with_name(f"shard-{index}.manifest.json").read_text()) for index in range(3)
    ]
    assert manifests[KILLED_INDEX]["shards"] > len(begun) >= 3
    assert [manifest["shard"]["first_row"] for manifest in manifests] == [0, 180, 540]
    assert [manifest["rows"] for manifest in manifests] == [180, 360, 360]

    arguments, variables = cluster.command(0)
    whole = cluster.volume / "whole"
    alone = [
        str(whole) if "shard-0" in argument else argument for argument in arguments if "--input-shard" not in argument
    ]
    command = [sys.executable, "-m", "electra_serve", *alone]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=True, timeout=LIMIT_S, capture_output=True)
    expected = pq.read_table(parts(whole))
    found = pa.concat_tables([pq.read_table(parts(cluster.output(index))) for index in range(3)])
    assert found["row"].to_pylist() == [row for row in range(len(ROWS)) if row not in NULLS]
    assert found["row"] == expected["row"]
    assert np.abs(matrix(found) - matrix(expected)).max() <= 1e-5
    rejects = [json.loads(line) for index in range(3) for line in rejected(cluster.output(index))]
    assert [reject["row"] for reject in rejects] == sorted(NULLS)
    assert rejects == [json.loads(line) for line in rejected(whole)]


def matrix(table: pa.Table) -> np.ndarray[Any, np.dtype[np.float32]]:
    column = table["embedding"].combine_chunks()
    return np.asarray(column.flatten().to_numpy(), np.float32).reshape(len(column), -1)


def rejected(output: Path) -> list[str]:
    return output.with_name(f"{output.name}.rejects.jsonl").read_text().splitlines()


def test_what_a_retry_cannot_change_is_tried_once(cluster: Cluster) -> None:
    cluster.finish(0)
    cluster.flags = [*cluster.flags, "--dtype=float16"]
    assert "cannot continue" in cluster.finish(0)
    cluster.completions = FILES + 1
    assert "the input must have a file for each of 6 shards; got 5 files" in cluster.finish(5)
    cluster.flags = ["--truncate=sideways"]
    assert "--truncate" in cluster.finish(1)
    assert cluster.runs == [(0, 0), (0, 3), (5, 3), (1, 2)]


def test_other_faults_are_retried(cluster: Cluster) -> None:
    for path in (cluster.volume / "input").iterdir():
        path.unlink()
    assert "cannot read" in cluster.finish(2)
    assert cluster.runs == [(2, 1)] * (1 + job()["backoffLimitPerIndex"])
