"""One name in the registry: what stands under it, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass

from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.model_info import Change, ModelInfo, ModelLimits, ModelState, ModelStatus, ShapeCost
from electra_serve.serving.served_model import ServedModel
from electra_serve.settings.schema import ModelSettings


@dataclass(slots=True)
class ModelEntry:
    """One model by its name.

    Attributes:
        settings: What it is or was to be loaded by.
        state: How far it has come. While it is reloaded it stays READY.
        served: What answers; None before the first load and after one that failed.
        change: What is being done to it; nothing else may be, meanwhile.
        reason: Why it could not be loaded the last time, in one line; "" where it could.
        claimed: The names that it will have once its reload is done; no other model may take them meanwhile.
    """

    settings: ModelSettings
    state: ModelState = ModelState.LOADING
    served: ServedModel | None = None
    change: Change | None = None
    reason: str = ""
    claimed: tuple[str, ...] = ()

    @property
    def ready_model(self) -> ServedModel | None:
        """What answers requests, if it is READY."""
        return self.served if self.state is ModelState.READY else None

    def status(self) -> ModelStatus:
        """What may be told to who administers it."""
        return ModelStatus.of(self.info(), change=self.change, reason=self.reason)

    def info(self) -> ModelInfo:
        """What may be told to everyone."""
        served = self.served
        if served is None:
            settings = self.settings
            return ModelInfo(settings.name, settings.preset, self.state, aliases=settings.aliases)
        preset = served.loaded.preset
        signature = served.loaded.engines[0].signature
        costs = served.batcher.costs
        return ModelInfo(
            name=served.name,
            preset=served.settings.preset,
            state=self.state,
            source=preset.source,
            revision=preset.revision,
            weights=preset.weights,
            config=preset.config,
            parameters=preset.config.parameters,
            limits=ModelLimits(served.input_limits.max_sequences, served.input_limits.max_sequence_length),
            engine=signature.engine,
            device=signature.device,
            dtype=signature.dtype,
            replicas=len(served.loaded.engines),
            text=not isinstance(served.tokenizer, NoTokenizer),
            load_seconds=served.load_seconds,
            batch_shapes=tuple(ShapeCost(shape.rows, shape.length, costs.seconds(shape)) for shape in costs.shapes),
            pooler=preset.pooler,
            batch_tokens=served.batcher.batch_tokens,
            aliases=served.settings.aliases,
            embedding=served.embedding,
            text_reason=served.tokenizer.reason if isinstance(served.tokenizer, NoTokenizer) else None,
        )
