"""Services of the kit as processes, with models on the device."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.integration.process import ServiceProcess, start
from tools.gpu_kit.stages.models import model_settings
from tools.gpu_kit.stages.stage import Bench

POLL_S: Final = 0.05
READY: Final = 200


def cache_variables(bench: Bench) -> dict[str, str]:
    """Variables for a compilation cache that all stages share; also programs that compile fast are kept."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(bench.work / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@contextlib.contextmanager
def serve(
    bench: Bench, sizes: Sequence[str], *flags: str, cached: bool = True, wait: bool = True
) -> Iterator[ServiceProcess]:
    """Serves models of `sizes`, with or without the compilation cache, and waits until they are ready."""
    models = [model_settings(size, bench.device) for size in sizes]
    with tempfile.TemporaryDirectory(dir=bench.work) as folder, contextlib.ExitStack() as stack:
        environment = cache_variables(bench) if cached else {}
        common = (f"--models={json.dumps(models)}", "--log.format=json", "--log.requests=false")
        service = stack.enter_context(start(Path(folder), *common, *flags, environment=environment))
        try:
            if wait:
                wait_ready(service)
            yield service
        finally:
            print(service.stderr[-4000:], flush=True)


def wait_ready(service: ServiceProcess) -> None:
    """Waits until `service` is ready, for as long as the stage may take.

    Raises:
        RuntimeError: The process ended.
    """
    while service.status("/readyz") != READY:
        if service.popen.poll() is not None:
            raise RuntimeError(f"the service ended: {service.stderr[-500:]}")
        time.sleep(POLL_S)
