"""A loaded model and its requests in flight.

A model may be unloaded while requests use it, in its queue or in the tokenizer. So each request enters `requests` in
the event-loop iteration that finds the model, and leaves with its response. The model is closed after the last one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType

from electra_serve.batching.batcher import Batcher
from electra_serve.engine.factory import LoadedModel
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer
from electra_serve.serving.embedding import configured_embedding
from electra_serve.serving.tokenization import TextLimits
from electra_serve.serving.validation import InputLimits
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import ENCODER_OUTPUTS, HEAD_OUTPUTS, Output, Outputs


class RequestTracker:
    """Counts requests in flight, each a `with` block. Event loop only."""

    def __init__(self) -> None:
        self.count = 0
        self._idle: asyncio.Event | None = None

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.count -= 1
        if not self.count and self._idle is not None:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Waits for the last request; no new one may enter meanwhile."""
        if self.count:
            self._idle = asyncio.Event()
            await self._idle.wait()


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A loaded model with its batcher and limits."""

    settings: ModelSettings
    loaded: LoadedModel
    batcher: Batcher
    input_limits: InputLimits
    text_limits: TextLimits
    max_timeout_s: float  # seconds after which any request is aborted
    load_seconds: float  # seconds from the start of the load to READY
    # requests in flight; enter it before awaiting anything
    requests: RequestTracker = field(default_factory=RequestTracker)

    @property
    def name(self) -> str:
        """Name in requests."""
        return self.settings.name

    @property
    def head(self) -> HeadConfig | None:
        """Head that is served; None without one."""
        return self.loaded.preset.head

    @property
    def outputs(self) -> Outputs:
        """Outputs that requests may name."""
        return ENCODER_OUTPUTS | {Output.EMBEDDING} | ({self.head.output} if self.head else set())

    def width(self, output: Output) -> int:
        """Returns the length of the last axis of `output`, one of `outputs`."""
        if output in HEAD_OUTPUTS and self.head is not None:
            return len(self.head.labels)
        return self.loaded.preset.config.hidden_dim

    @property
    def embedding(self) -> EmbeddingConfig:
        """Computation of the output `embedding`."""
        return configured_embedding(self.loaded.preset.embedding, self.settings.embedding)

    @property
    def tokenizer(self) -> Tokenizer | NoTokenizer:
        """Tokenizer, or the reason why there is none."""
        return self.loaded.tokenizer
