"""A model that answers requests, and who is using it.

A model may be taken out of service while requests work with it: some wait in its queue, and some have only had their
text tokenized by it. So each request enters `requests` in the turn of the event loop in which it finds the model, and
leaves when it has its answer. A model is closed once it can no longer be found and nobody is left.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType

from electra_serve.batching.batcher import Batcher
from electra_serve.engine.factory import LoadedModel
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.tokenizers.loader import NoTokenizer, Tokenizer
from electra_serve.serving.embedding import configured_embedding
from electra_serve.serving.tokenization import TextLimits
from electra_serve.serving.validation import InputLimits
from electra_serve.settings.schema import ModelSettings


class RequestTracker:
    """Counts who is using something. On the event loop only.

    Example:
        >>> users = RequestTracker()
        >>> with users:
        ...     users.count
        1
        >>> users.count
        0
    """

    def __init__(self) -> None:
        self.count = 0
        self._gone: asyncio.Event | None = None

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.count -= 1
        if not self.count and self._gone is not None:
            self._gone.set()

    async def gone(self) -> None:
        """Waits until there is no user, where no new one can come."""
        if self.count:
            self._gone = asyncio.Event()
            await self._gone.wait()


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A model that answers requests.

    Attributes:
        settings: What it was loaded by.
        loaded: Its preset, tokenizer and engines.
        batcher: Where its sequences go.
        input_limits: What one request may hold.
        text_limits: How much text one request may hold.
        max_timeout_s: Seconds after which any request is aborted, and the longest that a client may ask for.
        load_seconds: From the start of loading to READY.
        requests: The requests that work with it. Enter without awaiting anything after finding it.
    """

    settings: ModelSettings
    loaded: LoadedModel
    batcher: Batcher
    input_limits: InputLimits
    text_limits: TextLimits
    max_timeout_s: float
    load_seconds: float
    requests: RequestTracker = field(default_factory=RequestTracker)

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.settings.name

    @property
    def hidden_dim(self) -> int:
        """H, the width of every output."""
        return self.loaded.preset.config.hidden_dim

    @property
    def embedding(self) -> EmbeddingConfig:
        """Computation of the output `embedding`."""
        return configured_embedding(self.loaded.preset.embedding, self.settings.embedding)

    @property
    def tokenizer(self) -> Tokenizer | NoTokenizer:
        """The tokenizer, or the reason why there is none."""
        return self.loaded.tokenizer
