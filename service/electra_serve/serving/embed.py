"""Embeds texts for other servers' APIs: prompts, normalization and length of the vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from electra_serve.errors import InvalidInput
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.serving.computation import Computation
from electra_serve.serving.embedding import SOURCES, unit_vector
from electra_serve.serving.encode import EncodeRequest, encode_in_slices
from electra_serve.serving.request_context import NO_CONTEXT, RequestContext
from electra_serve.serving.response_size import at_most, check_values, reserve
from electra_serve.serving.sequences import TEMPLATE_IDS, count_of, sizes_of
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.transit_budget import Transit
from electra_serve.settings.schema import EmbeddingSettings
from electra_serve.tensors import Float32Array, Output, TextInput, TokenInput, Truncation

# Names of prompts by the kinds of input that clients send; the first one that a model has is used
INPUT_TYPES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "query": ("query", "search_query"),
        "search_query": ("query", "search_query"),
        "passage": ("passage", "document", "search_document"),
        "document": ("document", "passage", "search_document"),
        "search_document": ("document", "passage", "search_document"),
    }
)
_NO_SETTINGS: Final = EmbeddingSettings()


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts or ids to embed; `model` may be None if only one is served."""

    input: TextInput | TokenInput
    model: str | None = None
    prompt_name: str | None = None  # of the model's prompts; None for its default
    input_type: str | None = None  # selects a prompt if the model has one for it
    normalize: bool = True  # to unit length
    dimensions: int | None = None  # length of the vectors
    per_token: bool = False  # hidden states of all positions instead; the two options above do not apply
    truncation: Truncation | None = None  # None for the model's setting
    context: RequestContext = NO_CONTEXT
    max_values: int | None = None  # most numbers of the response
    transit: Transit | None = None  # share of the transit budget


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Vectors of a request, in order."""

    model: str
    vectors: tuple[Float32Array, ...]  # (D,) each, or (T, H) per token
    tokens: int  # unmasked positions of all inputs
    truncated: tuple[bool, ...]

    @property
    def values(self) -> int:
        """Numbers in all vectors."""
        return sum(vector.size for vector in self.vectors)


def choose_prompt(embedding: EmbeddingConfig, prompt_name: str | None, input_type: str | None) -> str:
    """Returns the prefix of each text; raises `InvalidInput` for a name that the model does not have.

    Example:
        >>> trained = EmbeddingConfig(prompts={"query": "query: ", "passage": ""}, default_prompt="passage")
        >>> choose_prompt(trained, None, "search_query"), choose_prompt(trained, None, None)
        ('query: ', '')
    """
    prompts = embedding.prompts
    if prompt_name is not None:
        if prompt_name not in prompts:
            known = f"among {', '.join(prompts)}" if prompts else "absent: the model has no prompts"
            raise InvalidInput(f"prompt_name must be {known}; got another", field="prompt_name")
        return prompts[prompt_name]
    wanted = () if input_type is None else (input_type, *INPUT_TYPES.get(input_type, ()))
    name = next((name for name in wanted if name in prompts), embedding.default_prompt)
    return prompts.get(name, "")


def with_prompt(texts: Sequence[TextOrPair], prompt: str) -> tuple[TextOrPair, ...]:
    """Returns the texts with a prefix; of a pair, its first text gets it."""
    if not prompt:
        return tuple(texts)
    return tuple(prompt + text if isinstance(text, str) else (prompt + text[0], text[1]) for text in texts)


def check_embed(request: EmbedRequest, hidden_dim: int, settings: EmbeddingSettings | None) -> None:
    """Raises `InvalidInput` for a length or for ids that the model's settings do not allow."""
    allowed = settings or _NO_SETTINGS
    lengths = sorted({hidden_dim, *(length for length in allowed.dimensions if length <= hidden_dim)})
    if request.dimensions is not None and request.dimensions not in lengths:
        raise InvalidInput(
            f"dimensions must be {' or '.join(map(str, lengths))} for this model; got {request.dimensions}",
            field="dimensions",
        )
    if isinstance(request.input, TokenInput) and allowed.token_ids == "reject":  # noqa: S105  # no password
        raise InvalidInput(
            "input must be text; got token ids, which must be those of this model's vocabulary. If your client "
            "tokenizes by itself, make it send text (LangChain: check_embedding_ctx_length=False), or set "
            "`embedding.token_ids: model` for this model",
            field="input",
        )


def truncation_of(request: EmbedRequest, settings: EmbeddingSettings | None) -> Truncation:
    """Returns the request's truncation, or that of the model's settings."""
    return truncation_setting(settings) if request.truncation is None else request.truncation


def truncation_setting(settings: EmbeddingSettings | None) -> Truncation:
    """Returns the truncation of a model's settings."""
    return Truncation.LONGEST_FIRST if (settings or _NO_SETTINGS).truncate else Truncation.NONE


def finish_vector(vector: Float32Array, request: EmbedRequest) -> Float32Array:
    """Cuts a vector to the requested length, and normalizes it if requested."""
    cut = vector if request.dimensions is None else vector[: request.dimensions]
    return unit_vector(cut) if request.normalize else cut


async def embed(computation: Computation, model: ServedModel, request: EmbedRequest) -> EmbedResult:
    """Computes one vector of each input, in slices; see `InferenceService.embed`."""
    settings, embedding = model.settings.embedding, model.embedding
    check_embed(request, model.width(Output.EMBEDDING), settings)
    prompt = choose_prompt(embedding, request.prompt_name, request.input_type)
    sequences = request.input
    if isinstance(sequences, TextInput):
        sequences = TextInput(with_prompt(sequences.texts, prompt))
    source = Output.SEQUENCE if request.per_token else SOURCES[embedding.pooling]
    await _reserve_vectors(model, replace(request, input=sequences))
    result = await encode_in_slices(
        computation,
        model,
        EncodeRequest(
            sequences,
            outputs=frozenset({source}),
            truncation=truncation_of(request, settings),
            context=request.context,
            max_values=request.max_values,
        ),
    )
    rows = [row.get(source) for row in result.rows]
    return EmbedResult(
        model=model.name,
        vectors=tuple(rows if request.per_token else (finish_vector(row, request) for row in rows)),
        tokens=result.tokens,
        truncated=result.truncated,
    )


async def _reserve_vectors(model: ServedModel, request: EmbedRequest) -> None:
    """Reserves bytes for the response; raises `PayloadTooLarge` if its size is known and too large."""
    if request.per_token:
        longest = model.input_limits.max_sequence_length
        positions = sum(min(size + TEMPLATE_IDS, longest) for size in sizes_of(request.input))
        values = at_most(positions * model.width(Output.SEQUENCE), request.max_values)
    else:
        values = count_of(request.input) * (request.dimensions or model.width(Output.EMBEDDING))
        check_values(values, request.max_values, "request fewer inputs")
    await reserve(request.transit, values)
