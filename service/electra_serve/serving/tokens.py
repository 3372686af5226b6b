"""Texts to tokens with their places, and ids to texts, by a model's own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from electra_serve.errors import InvalidInput
from electra_serve.presets.tokenizers.alignment import NO_TEXT
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.presets.tokenizers.steps import Steps
from electra_serve.serving.computation import Computation, tokenizer_of
from electra_serve.serving.embed import choose_prompt, with_prompt
from electra_serve.serving.request_context import NO_CONTEXT, RequestContext
from electra_serve.serving.response_size import at_most, check_values, reserve
from electra_serve.serving.sequences import TEMPLATE_IDS, part_of, sizes_of
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.tokenization import MIN_CHARACTERS, check_characters
from electra_serve.serving.transit_budget import Transit
from electra_serve.tensors import Int32Array, TextInput, TokenInput

VALUES_PER_TOKEN: Final = 6
"""Numbers that a token counts as in the size of a response."""
VALUES_PER_ID: Final = 1
"""Likewise, an id that becomes text."""
MAX_ID: Final = 2**31 - 1
ID_CHARACTERS: Final = 4
"""Characters that an id counts as in the tokenizer's queue."""
_ANY_LENGTH: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """Texts, without pairs, to tokenize; nothing is cut. `model` may be None if only one is served."""

    input: TextInput
    model: str | None = None
    prompt_name: str | None = None  # of the model's prompts; None for its default
    prompted: bool = True  # False takes the texts as they are, without a prompt
    add_special_tokens: bool = True  # [CLS] and [SEP]
    all_pieces: bool = False  # pieces of all ids in the result, not only of special ones
    context: RequestContext = NO_CONTEXT
    max_values: int | None = None  # most numbers of the response
    transit: Transit | None = None  # share of the transit budget


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Tokens of one text; all arrays are (T,), and offsets count the characters of `text`."""

    text: str  # with its prompt
    token_ids: Int32Array
    starts: Int32Array
    ends: Int32Array
    special: NDArray[np.bool_]  # true for ids of the template


@dataclass(frozen=True, slots=True)
class TokenizeResult:
    """Tokens of each text, in order."""

    model: str
    rows: tuple[Tokens, ...]
    pieces: Mapping[int, str]  # of the special ids, or of all

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(len(row.token_ids) for row in self.rows)


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """Ids to turn into texts; `model` may be None if only one is served."""

    input: TokenInput
    model: str | None = None
    skip_special_tokens: bool = True
    context: RequestContext = NO_CONTEXT
    max_values: int | None = None  # most numbers of the response
    transit: Transit | None = None  # share of the transit budget


@dataclass(frozen=True, slots=True)
class DetokenizeResult:
    """Text of each sequence of ids, in order."""

    model: str
    texts: tuple[str, ...]
    tokens: int


def tokenize_in_steps(
    texts: Sequence[str], tokenizer: Tokenizer, *, template: bool, pieces: dict[int, str] | None = None
) -> Steps[list[Tokens]]:
    """Tokenizes texts of any length, with or without the ids of the template; adds the pieces of ids to `pieces`."""
    rows: list[Tokens] = []
    for text in texts:
        row = yield from tokenizer.encode_in_steps((text,), max_length=_ANY_LENGTH, aligned=True)
        (token_ids,), (alignment,) = row.token_ids, row.alignments or ()
        special = alignment.texts == NO_TEXT
        kept = slice(None) if template else ~special
        rows.append(Tokens(text, token_ids[kept], alignment.starts[kept], alignment.ends[kept], special[kept]))
        if pieces is not None:
            pieces |= {id_: tokenizer.piece(id_) for id_ in set(token_ids.tolist()) - pieces.keys()}
    return rows


def special_pieces(rows: Sequence[Tokens], tokenizer: Tokenizer) -> dict[int, str]:
    """Returns the text of each special id."""
    found = {int(id_) for row in rows for id_ in row.token_ids[row.special]}
    return {id_: tokenizer.piece(id_) for id_ in found}


def check_decodable(sequences: TokenInput, max_length: int) -> None:
    """Raises `InvalidInput` for a sequence that is too long, or an id that no vocabulary has."""
    for index, ids in enumerate(sequences.token_ids):
        if len(ids) > max_length:
            raise InvalidInput(
                f"a sequence must have at most {max_length} ids; got {len(ids)}", field=f"token_ids[{index}]"
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_ID:
            raise InvalidInput(f"ids must be from 0 to {MAX_ID}; got another", field=f"token_ids[{index}]")


def decode_in_steps(sequences: TokenInput, tokenizer: Tokenizer, *, skip_special: bool) -> Steps[list[str]]:
    """Turns each sequence into a text."""
    texts: list[str] = []
    for ids in sequences.token_ids:
        texts.append(tokenizer.decode(ids.tolist(), skip_special=skip_special))
        yield ID_CHARACTERS * len(ids)
    return texts


async def tokenize(computation: Computation, model: ServedModel, request: TokenizeRequest) -> TokenizeResult:
    """Finds the tokens of texts, in slices; see `InferenceService.tokenize`."""
    tokenizer = tokenizer_of(model, "text")
    prompt = choose_prompt(model.embedding, request.prompt_name, None) if request.prompted else ""
    texts = TextInput(with_prompt(request.input.texts, prompt))
    most = VALUES_PER_TOKEN * sum(size + TEMPLATE_IDS for size in sizes_of(texts))
    await reserve(request.transit, at_most(most, request.max_values))
    counts: dict[int, int] = {}

    async def tokenize_part(part: range, context: RequestContext) -> TokenizeResult:
        inputs = part_of(texts, part)
        check_characters(inputs, model.text_limits)
        pieces: dict[int, str] | None = {} if request.all_pieces else None
        given = cast("Sequence[str]", inputs.texts)
        steps = tokenize_in_steps(given, tokenizer, template=request.add_special_tokens, pieces=pieces)
        characters = sum(max(size, MIN_CHARACTERS) for size in sizes_of(inputs))
        rows = await computation.on_tokenizer(model, context, steps, characters)
        found = special_pieces(rows, tokenizer) if pieces is None else pieces
        result = TokenizeResult(model.name, tuple(rows), found)
        counts[part.start] = result.tokens
        values = VALUES_PER_TOKEN * sum(counts.values())
        check_values(values, request.max_values, "request fewer texts")
        return result

    results = await computation.in_slices(model, texts, request.context, tokenize_part)
    pieces = {id_: piece for result in results for id_, piece in result.pieces.items()}
    return TokenizeResult(model.name, tuple(row for result in results for row in result.rows), pieces)


async def detokenize(computation: Computation, model: ServedModel, request: DetokenizeRequest) -> DetokenizeResult:
    """Turns ids into texts, in slices; see `InferenceService.detokenize`."""
    tokenizer = tokenizer_of(model, "token_ids")
    check_decodable(request.input, model.text_limits.max_characters)
    tokens = sum(sizes_of(request.input))
    check_values(VALUES_PER_ID * tokens, request.max_values, "request fewer ids")
    await reserve(request.transit, VALUES_PER_ID * tokens)

    async def decode(part: range, context: RequestContext) -> list[str]:
        inputs = part_of(request.input, part)
        steps = decode_in_steps(inputs, tokenizer, skip_special=request.skip_special_tokens)
        characters = sum(max(ID_CHARACTERS * size, MIN_CHARACTERS) for size in sizes_of(inputs))
        return await computation.on_tokenizer(model, context, steps, characters)

    results = await computation.in_slices(model, request.input, request.context, decode)
    return DetokenizeResult(model.name, tuple(text for texts in results for text in texts), tokens)
