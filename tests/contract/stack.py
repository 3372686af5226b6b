"""The service whole, but for the network's other end and the engine: what `bootstrap` wires, over fake engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Final

import structlog
from structlog.testing import CapturingLogger

from benchmarks.stand_in.service import bare_preset
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.engine.factory import LoadedModel
from electra_serve.observability.metrics import Metrics
from electra_serve.observability.requests import RequestObserver
from electra_serve.observability.statistics import read_statistics
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import load_tokenizer
from electra_serve.server.models import build_manager
from electra_serve.serving.manager import ModelManager
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.service import InferenceService
from electra_serve.settings.schema import (
    BatchingSettings,
    GrpcSettings,
    LimitSettings,
    ModelSettings,
    RestSettings,
    Settings,
)
from tests.fakes import FAKE_HIDDEN_DIM, FakeEngine, fake_timings, text_encoder

TINY = "tiny"
VOCAB_SIZE = 100
MAX_LENGTH = 8
MAX_SEQUENCES = 4
MAX_TEXT_CHARACTERS = 1200
MAX_REQUEST_BYTES = 16_384
MAX_QUEUE_SEQUENCES = 6
NO_HEADS: Final[Mapping[str, HeadConfig]] = MappingProxyType({})

SECONDS_PER_POSITION = 0.001
SHAPES = ((1, 4), (1, 8), (4, 8), (8, 8))
"""Rows and lengths of the batches of a model that takes at most `MAX_LENGTH` positions."""

TINY_CONFIG = BackboneConfig(
    vocab_size=VOCAB_SIZE,
    num_layers=1,
    num_heads=1,
    hidden_dim=FAKE_HIDDEN_DIM,
    embedding_dim=FAKE_HIDDEN_DIM,
    intermediate_dim=4,
    max_sequence_length=MAX_LENGTH,
)


def make_settings(max_timeout_s: float = 30.0) -> Settings:
    """Two models, one of ids alone and one with a tokenizer, and limits that a test soon reaches."""
    return Settings(
        models=(ModelSettings(preset=TINY), ModelSettings(preset=DEMO_ID)),
        rest=RestSettings(max_body_bytes=MAX_REQUEST_BYTES),
        grpc=GrpcSettings(port=0, max_request_bytes=MAX_REQUEST_BYTES),
        limits=LimitSettings(
            max_sequences=MAX_SEQUENCES, max_text_characters=MAX_TEXT_CHARACTERS, max_timeout_s=max_timeout_s
        ),
        batching=BatchingSettings(max_queue_sequences=MAX_QUEUE_SEQUENCES),
    )


@dataclass(frozen=True, slots=True)
class Stack:
    """The service below the transports, and what a test watches and works it by.

    Attributes:
        settings: What it was made from.
        engines: The fake engine of each model, by name.
    """

    settings: Settings
    engines: Mapping[str, FakeEngine]
    manager: ModelManager
    service: InferenceService
    metrics: Metrics
    log: structlog.typing.FilteringBoundLogger
    lines: CapturingLogger = field(repr=False)
    authenticator: Authenticator = ALLOW_ALL

    @classmethod
    def build(
        cls,
        settings: Settings,
        engine: type[FakeEngine] = FakeEngine,
        authenticator: Authenticator = ALLOW_ALL,
        heads: Mapping[str, HeadConfig] = NO_HEADS,
        text_heads: Mapping[str, HeadConfig] = NO_HEADS,
    ) -> Stack:
        """Wires it, with a model for each of `heads` by its name; no model is loaded yet.

        Those of `text_heads` have the demo's tokenizer.
        """
        engines = {TINY: engine(SHAPES), DEMO_ID: engine()}
        engines |= {name: engine(SHAPES, head) for name, head in heads.items()}
        engines |= {name: engine(head=head) for name, head in text_heads.items()}
        metrics, lines = Metrics("test"), CapturingLogger()
        log = structlog.wrap_logger(lines, [], structlog.make_filtering_bound_logger("debug"))
        registry = ModelRegistry(settings.models)
        manager = build_manager(settings, registry, metrics, log, load=partial(_load, engines, frozenset(text_heads)))
        service = InferenceService(registry, text_encoder())
        return cls(settings, engines, manager, service, metrics, log, lines, authenticator)

    @property
    def engine(self) -> FakeEngine:
        """The one that most requests go to."""
        return self.engines[TINY]

    def oip(self, transport: str) -> OipParts:
        """Parts of the Open Inference Protocol on a transport."""
        return OipParts(RequestObserver(transport, self.metrics, self.log), partial(read_statistics, self.metrics))

    def batches(self) -> int:
        """Number of batches that have reached any engine."""
        return sum(len(engine.batches) for engine in self.engines.values())

    def open(self) -> None:
        """Lets every engine run."""
        for engine in self.engines.values():
            engine.gate.set()

    def counted(self, transport: str, code: str) -> float:
        """Returns the number of requests with `code`, of all models."""
        return sum(
            self.metrics.registry.get_sample_value(
                "electra_requests_total", {"model": model, "transport": transport, "code": code}
            )
            or 0.0
            for model in ("", *self.engines)
        )

    def gauge(self, name: str) -> float:
        """A gauge of the model that most requests go to."""
        value = self.metrics.registry.get_sample_value(name, {"model": TINY})
        assert value is not None, name
        return value


def _load(
    engines: Mapping[str, FakeEngine], texts: frozenset[str], settings: ModelSettings, _: BatchingSettings
) -> LoadedModel:
    """Stands in for `load_model`: the demo's own tokenizer, and no weights."""
    engine = engines[settings.name]
    preset = replace(bare_preset(settings.name, TINY_CONFIG), head=engine.head)
    if settings.name == DEMO_ID or settings.name in texts:
        preset = replace(resolve_preset(DEMO_ID, load_weights=False), head=engine.head)
    timings = fake_timings(engine, batch_s=0.0, position_s=SECONDS_PER_POSITION)
    return LoadedModel(preset, load_tokenizer(preset), (engine,), timings)
