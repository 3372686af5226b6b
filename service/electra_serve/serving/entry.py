"""One model by its name: settings, state and, once loaded, the served model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.model_info import Change, ModelInfo, ModelLimits, ModelState, ModelStatus, ShapeCost
from electra_serve.serving.served_model import ServedModel
from electra_serve.settings.schema import ModelSettings


@dataclass(slots=True)
class ModelEntry:
    """Entry of the registry."""

    settings: ModelSettings  # settings of the loaded model, or of the first load
    state: ModelState = ModelState.LOADING  # READY also during a reload
    served: ServedModel | None = None  # None before the first load and after a load that failed
    change: Change | None = None  # operation in progress
    reason: str = ""  # reason of the last failed operation in one line; "" after a success
    claimed: tuple[str, ...] = ()  # names reserved by a reload in progress
    _described: ModelInfo | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def ready_model(self) -> ServedModel | None:
        """The served model if it is READY."""
        return self.served if self.state is ModelState.READY else None

    def publish(self, served: ServedModel) -> ServedModel | None:
        """Becomes READY with a loaded model; returns the previous one."""
        previous, self.served, self._described = self.served, served, None
        self.settings, self.state, self.reason = served.settings, ModelState.READY, ""
        return previous

    def fail(self, reason: str) -> None:
        """Records a failed load; a model that is already served stays READY."""
        self.reason = reason
        if self.served is None:
            self.state = ModelState.FAILED

    def status(self) -> ModelStatus:
        """Describes the model to administrators."""
        return ModelStatus.of(self.info(), change=self.change, reason=self.reason)

    def info(self) -> ModelInfo:
        """Describes the model to clients; a served model is described once, since some requests need it."""
        if self.served is None:
            settings = self.settings
            return ModelInfo(settings.name, settings.preset, self.state, aliases=settings.aliases)
        if self._described is None:
            self._described = self._describe(self.served)
        known, state, batch_tokens = self._described, self.state, self.served.batcher.batch_tokens
        if (known.state, known.batch_tokens) != (state, batch_tokens):
            self._described = known = replace(known, state=state, batch_tokens=batch_tokens)
        return known

    def _describe(self, served: ServedModel) -> ModelInfo:
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
            parameters=preset.parameters,
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
            head=preset.head_name,
            labels=preset.head.labels if preset.head else (),
            activation=preset.head.activation if preset.head else None,
            problem_type=preset.head.problem_type if preset.head else None,
            text_reason=served.tokenizer.reason if isinstance(served.tokenizer, NoTokenizer) else None,
        )
