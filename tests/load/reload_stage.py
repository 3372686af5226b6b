"""The service with an admin port, two versions of a preset at hand, and damaged ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import httpx

from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.tensors import Float32Array
from tests.integration.process import ServiceProcess, free_port, start
from tests.load.operator import KEY, Operator
from tests.load.variants import CORRUPTIONS, make_corrupt, make_version
from tests.load.versions import QUERIES, TOLERANCE, Expected, version_of

MODEL: Final = "one"
"""What is served from the start, and reloaded."""
VERSIONS: Final = ("old", "new")


@dataclass(frozen=True, slots=True)
class Stage:
    """The service with two versions of a preset at hand, and damaged ones.

    Attributes:
        process: The service.
        operator: Changes its models.
        metrics_port: Where its metrics are.
        folders: The presets by what they are: a version, or what is wrong with them.
        expected: What each version answers.
    """

    process: ServiceProcess
    operator: Operator
    metrics_port: int
    folders: dict[str, Path]
    expected: Expected


@contextmanager
def set_up(folder: Path) -> Iterator[Stage]:
    """Starts the service with the old version, and learns what both answer."""
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
        for query, answer in enumerate(expected["new"]):
            assert version_of(answer, query, {"old": expected["old"]}) == "neither", "the versions must differ"
        yield Stage(process, operator, metrics_port, folders, expected)


def learn(process: ServiceProcess, operator: Operator, name: str, folder: Path) -> Sequence[Float32Array]:
    """What a preset answers, both transports alike, when nothing else happens."""
    assert operator.load(str(folder), name).status_code == 201
    with httpx.Client(base_url=process.url, timeout=60) as client, grpc.insecure_channel(process.target) as channel:
        stub = EncoderServiceStub(channel)
        answers = [query.over_rest(client, name) for query in QUERIES]
        for query, answer in zip(QUERIES, answers, strict=True):
            assert abs(query.over_grpc(stub, name) - answer).max() < TOLERANCE / 10
    assert operator.unload(name).status_code == 204
    return answers
