"""The service with an admin port, two versions of a preset, and damaged ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import grpc
import httpx

from benchmarks.load.clients import ENCODE_METHOD
from electra_serve.tensors import Float32Array
from tests.integration.process import ServiceProcess, free_port, start
from tests.load.operator import KEY, Operator
from tests.load.variants import CORRUPTIONS, make_corrupt, make_version
from tests.load.versions import NEITHER, QUERIES, TOLERANCE, grpc_outputs, rest_outputs, version_of

MODEL: Final = "one"
"""Name of the model that is served from the start and reloaded."""
VERSIONS: Final = ("old", "new")
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stage:
    """The service, two versions of a preset, and damaged ones.

    Attributes:
        process: The service.
        operator: Client of its admin API.
        metrics_port: Port of its metrics.
        folders: Presets by version, or by damage.
        expected: Outputs of each version for each of `QUERIES`.
    """

    process: ServiceProcess
    operator: Operator
    metrics_port: int
    folders: dict[str, Path]
    expected: Mapping[str, Sequence[Float32Array]]


@contextmanager
def set_up(folder: Path) -> Iterator[Stage]:
    """Starts the service with the old version, and learns the outputs of both."""
    folders = {version: make_version(folder / version, seed) for seed, version in enumerate(VERSIONS, start=1)}
    folders |= {what: make_corrupt(folder / str(number), what) for number, what in enumerate(CORRUPTIONS)}
    keys = folder / "keys"
    keys.write_text(f"operator:{KEY}\n")
    admin_port, metrics_port = free_port(), free_port()
    flags = (
        f'--models={{"preset": "{folders["old"]}", "name": "{MODEL}"}}',
        f"--admin.port={admin_port}",
        f"--admin.keys_file={keys}",
        f"--metrics.port={metrics_port}",
        "--log.format=json",
    )
    with start(folder, *flags) as process, closing(Operator(admin_port)) as operator:
        process.wait_ready()
        expected = {version: learn(process, operator, version, folders[version]) for version in VERSIONS}
        for old, new in zip(*expected.values(), strict=True):
            assert version_of(new, {"old": old}) == NEITHER, "the versions must differ"
        yield Stage(process, operator, metrics_port, folders, expected)


def learn(process: ServiceProcess, operator: Operator, name: str, folder: Path) -> Sequence[Float32Array]:
    """Returns the outputs of a preset for each of `QUERIES`; checks that both transports agree."""
    assert operator.load(str(folder), name).status_code == 201
    with (
        httpx.Client(base_url=process.url, timeout=TIMEOUT_S) as client,
        grpc.insecure_channel(process.target) as channel,
    ):
        encode: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ENCODE_METHOD)
        outputs = []
        for query in (replace(query, model=name) for query in QUERIES):
            outputs.append(rest_outputs(client.post("/v1/encode", content=query.rest()).content))
            assert abs(grpc_outputs(encode(query.grpc(), timeout=TIMEOUT_S)) - outputs[-1]).max() < TOLERANCE / 10
    assert operator.unload(name).status_code == 204
    return outputs
