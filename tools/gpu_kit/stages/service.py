"""The service with all sizes on the device: what it reports, its responses, reloads, and the end."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.load.clients import OK, UNREACHABLE, BackgroundLoad
from benchmarks.workload import natural_lengths, token_ids
from electra_serve import ElectraClient, GrpcElectraClient
from tests.integration.process import ServiceProcess, free_port
from tests.load.payload import named_requests
from tests.waiting import wait_until
from tools.gpu_kit.stages.device_memory import device_memory_mib
from tools.gpu_kit.stages.models import dtype_on, sizes_on
from tools.gpu_kit.stages.services import serve
from tools.gpu_kit.stages.stage import Bench, run_stage

RELOADS: Final = 3
RELOAD_S: Final = 120.0
GROWTH_MIB: Final = 64.0
"""Device memory that a reload after the first may add."""
SEQUENCES: Final = 8
BATCHED_DIFFERENCE: Final = {"float32": 1e-5, "bfloat16": 0.1}
"""Largest difference of one number between a sequence alone and in a batch, in the dtype served."""
WARM: Final = 20
CLIENTS: Final = 16
LENGTH: Final = 48
BYTES_PER_PARAMETER: Final = 2


def check_service(bench: Bench) -> None:
    """Starts the service and checks everything about it."""
    sizes, admin = sizes_on(bench.device), free_port()
    before, began = device_memory_mib(), time.monotonic()
    with serve(bench, sizes, f"--admin.port={admin}", "--admin.without_keys=true") as service:
        bench.recorder.add("ready_s", [time.monotonic() - began], size="+".join(sizes), cache="empty")
        models = {model["name"]: model for model in httpx.get(f"{service.url}/v1/models").json()["models"]}
        _check_models(bench, models)
        _check_memory(bench, models, before)
        for size in sizes:
            _check_responses(bench, service, size)
        _check_reloads(bench, service, admin, sizes[0])
        _check_drain(bench, service, sizes[0])


def _check_models(bench: Bench, models: dict[str, Any]) -> None:
    device = "gpu:0" if bench.on_gpu else "cpu"
    for name, model in models.items():
        found = {field: model[field] for field in ("state", "engine", "device", "dtype")}
        expected = {"state": "ready", "engine": "jax", "device": device, "dtype": dtype_on(bench.device)}
        bench.recorder.check(f"{name}: /v1/models reports {device}", found == expected, found)
        bench.recorder.add("load_s", [model["load_seconds"]], size=name)


def _check_memory(bench: Bench, models: dict[str, Any], before: float | None) -> None:
    after = device_memory_mib()
    if not bench.on_gpu or before is None or after is None:
        bench.recorder.skip("device memory", RuntimeError("no NVIDIA driver, or no GPU is used"))
        return
    weights = sum(model["parameters"] for model in models.values()) * BYTES_PER_PARAMETER / 2**20
    bench.recorder.add("device_memory_mib", [after - before], size="+".join(models))
    bench.recorder.check("weights are on the device", after - before >= weights, f"{after - before:.0f} MiB")


def _check_responses(bench: Bench, service: ServiceProcess, size: str) -> None:
    """Compares the transports, and sequences in one request with the same ones alone."""
    ids = [row.tolist() for row in token_ids(natural_lengths(SEQUENCES))]
    outputs = ["mean_output", "cls_output"]
    with ElectraClient(service.url) as rest, GrpcElectraClient(service.target) as grpc:
        together = rest.encode(model=size, token_ids=ids, outputs=outputs)
        other = grpc.encode(model=size, token_ids=ids, outputs=outputs)
        alone = [rest.encode(model=size, token_ids=[row], outputs=outputs) for row in ids]
    for name in outputs:
        one, two = (np.asarray(getattr(found, name)) for found in (together, other))
        lone = np.concatenate([np.asarray(getattr(found, name)) for found in alone])
        most = BATCHED_DIFFERENCE[dtype_on(bench.device)]
        bench.recorder.check(f"{size}: {name} is finite", np.isfinite(one).all())
        for label, numbers in (("gRPC", two), ("alone", lone)):
            difference = float(np.abs(one - numbers).max())
            bench.recorder.check(f"{size}: {name} on REST equals {label}", difference <= most, f"{difference:.2g}")


def _check_reloads(bench: Bench, service: ServiceProcess, admin: int, size: str) -> None:
    url = f"http://127.0.0.1:{admin}/admin/v1/models/{size}/reload"
    used = []
    for _ in range(RELOADS):
        status = httpx.post(url, json={}, timeout=RELOAD_S).status_code
        bench.recorder.check(f"{size} reloads", status == httpx.codes.OK, status)
        used.append(device_memory_mib())
    known = [mib for mib in used if mib is not None]
    bench.recorder.add("device_memory_after_reload_mib", known, size=size)
    if bench.on_gpu and known:
        detail = json.dumps(known)
        bench.recorder.check("reloads leak no device memory", known[-1] <= known[0] + GROWTH_MIB, detail)
    bench.recorder.check(f"{size} is served after reloads", service.status(f"/v1/models/{size}") == httpx.codes.OK)


def _check_drain(bench: Bench, service: ServiceProcess, size: str) -> None:
    requests = (replace(request, model=size) for request in named_requests(LENGTH))
    with BackgroundLoad(service.endpoints, CLIENTS, requests) as load:
        wait_until(lambda: min(load.answered(OK, transport=name) for name in ("rest", "grpc")) >= WARM)
        service.terminate()
        code = service.wait()
    outcomes = load.codes()
    bench.recorder.check("SIGTERM drains", code == 0, f"exit code {code}")
    bench.recorder.check("no request is lost", outcomes <= {OK, "shutting_down", UNREACHABLE}, sorted(outcomes))


if __name__ == "__main__":
    sys.exit(run_stage("service", check_service))
