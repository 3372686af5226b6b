"""Pieces that are never split, collected from a checkpoint's files as transformers 5 collects them.

    tokenizer_config.json     added_tokens_decoder, bos_token … mask_token, any *_token, extra_special_tokens
    special_tokens_map.json   likewise, unless tokenizer_config.json has added_tokens_decoder (transformers 3 and 4)
    added_tokens.json         likewise (slow tokenizers of transformers 3 and 4)
    tokenizer.json            added_tokens, likewise

The order in which pieces are added decides the ids of those that the vocabulary lacks. So this follows
`PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__` step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline

from electra_serve.errors import PresetError
from electra_serve.presets.config import LIMITS
from electra_serve.presets.tokenizers.tokenizer_classes import UnsupportedTokenizer

# Roles that every tokenizer knows, in the order in which their pieces are added
ROLES: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS: Final = ("lstrip", "rstrip", "single_word", "normalized", "special")
MARK: Final = "__type"  # the key of an object in tokenizer_config.json that stands for a piece
EXTRA: Final = "extra_special_tokens"
OLD_EXTRA: Final = "additional_special_tokens"
SPECIFIC: Final = "model_specific_special_tokens"

Listed = tuple[int, AddedToken]


@dataclass(frozen=True, slots=True)
class PieceFiles:
    """Contents of the files that name pieces; None for a file that the checkpoint lacks.

    Attributes:
        settings: tokenizer_config.json; empty if there is none.
        special: special_tokens_map.json.
        added: added_tokens.json.
        serialized: tokenizer.json.
    """

    settings: Mapping[str, Any]
    special: Mapping[str, Any] | None = None
    added: Mapping[str, Any] | None = None
    serialized: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AddedPieces:
    """Pieces that are never split.

    Attributes:
        by_id: Those that the files list, by the id that they list there.
        named: Special pieces by their role, in order: a text, or a piece with its flags.
        extra: Special pieces without a role.
    """

    by_id: Mapping[int, AddedToken]
    named: Mapping[str, str | AddedToken]
    extra: tuple[str | AddedToken, ...] = ()

    def role(self, name: str) -> str | None:
        """The text of the piece that has the role `name`."""
        return str(self.named[name]) if name in self.named else None


def collect_added_pieces(files: PieceFiles, defaults: Mapping[str, str]) -> AddedPieces:
    """Collects the pieces.

    Raises:
        PresetError: A piece is malformed.
        UnsupportedTokenizer: The files are read by no version of transformers 5.
    """
    values = _renamed(files.settings)
    if "added_tokens_decoder" in values:
        listed = list(_from_decoder(values["added_tokens_decoder"]))
    else:
        _merge_special(values, files.special or {})
        listed = [*_from_added_tokens(values, files.added or {}), *_from_serialized(files.serialized)]
    values = {**defaults, **{key: _revived(value) for key, value in values.items()}}
    by_text = {str(token): token for _, token in listed}
    for role in ROLES:
        if values.get(role) is not None:
            values[role] = by_text.get(str(values[role]), values[role])
    if OLD_EXTRA in values and EXTRA not in values:
        values[EXTRA] = values.pop(OLD_EXTRA)
    return AddedPieces(dict(listed), _named(values), _extra(values))


def add_pieces(pipeline: Pipeline, pieces: AddedPieces) -> None:
    """Adds the pieces, with their flags; each gets its id in the vocabulary, or the next free one.

    Raises:
        UnsupportedTokenizer: That is another id than the files list, so versions of transformers disagree on it.
    """
    tokens: list[str | AddedToken] = [token for _, token in sorted(pieces.by_id.items())]
    known = pipeline.get_added_tokens_decoder().values()
    texts = {token.content for token in known} | {str(token) for token in tokens}
    for special in (*pieces.named.values(), *pieces.extra):
        if str(special) not in texts and special not in tokens:
            tokens.append(special)
    names = {str(token) for token in pieces.named.values()}
    pipeline.add_tokens([_flagged(token, special=str(token) in names) for token in tokens])
    for id_, token in pieces.by_id.items():
        if token.content and pipeline.token_to_id(token.content) != id_:
            raise UnsupportedTokenizer(
                f"an added piece must have the next free id, or its own in the vocabulary; {id_} is neither"
            )


def _flagged(token: str | AddedToken, *, special: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if special:
        token.special = True  # not a copy: a piece that leaves `normalized` open follows `special`
    return token


def _renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with pieces of roles that only this checkpoint has under one key."""
    values = dict(settings)
    if OLD_EXTRA in values and not values.get(EXTRA):
        values[EXTRA] = values.pop(OLD_EXTRA)
    own = [key for key, value in values.items() if _is_own_role(key) and isinstance(value, str)]
    specific = {key: values.pop(key) for key in own}
    if isinstance(values.get(EXTRA), dict):
        specific |= values.pop(EXTRA)
    if specific:
        values[SPECIFIC] = specific
    return values


def _is_own_role(key: str) -> bool:
    return key.endswith("_token") and key not in ROLES


def _merge_special(values: dict[str, Any], special: Mapping[str, Any]) -> None:
    """Adds the content of special_tokens_map.json, which wins over tokenizer_config.json."""
    for key, value in special.items():
        if key == EXTRA and isinstance(value, list):
            values[key] = _joined(_list(values), value)
        elif key != EXTRA and isinstance(value, dict):
            values[key] = _special_token(value)
        else:
            values[key] = value
    if isinstance(values.get(EXTRA), dict):
        values[SPECIFIC] = {**_specific(values), **values.pop(EXTRA)}


def _joined(existing: list[Any], listed: list[Any]) -> list[Any]:
    for entry in listed:
        if isinstance(entry, dict) and "special" in entry:
            raise UnsupportedTokenizer(f"{EXTRA} of special_tokens_map.json must not have special; one has")
        token = _special_token(entry) if isinstance(entry, dict) else entry
        if token not in existing:
            existing.append(token)
    return existing


def _from_decoder(decoder: object) -> Iterator[Listed]:
    if not isinstance(decoder, dict):
        raise PresetError("added_tokens_decoder must be an object; it is not")
    for id_, entry in decoder.items():
        yield _checked_id(int(id_) if id_.isascii() and id_.isdigit() else None), _token(entry)


def _from_added_tokens(values: Mapping[str, Any], added: Mapping[str, Any]) -> Iterator[Listed]:
    special = {str(values[role]) for role in ROLES if values.get(role)} | set(map(str, _list(values)))
    for text, id_ in added.items():
        is_special = text in special
        yield _checked_id(id_), AddedToken(_checked_text(text), normalized=not is_special, special=is_special)


def _from_serialized(serialized: Mapping[str, Any] | None) -> Iterator[Listed]:
    if serialized is None:
        return
    listed = serialized.get("added_tokens")
    if not isinstance(listed, list):
        raise PresetError("added_tokens of tokenizer.json must be a list; it is not")
    for entry in listed:
        yield _checked_id(entry.get("id") if isinstance(entry, dict) else None), _token(entry)


def _named(values: Mapping[str, Any]) -> dict[str, str | AddedToken]:
    """Pieces by role: those that every tokenizer knows, then the checkpoint's own."""
    named = {role: values.get(role) for role in ROLES}
    own = {key: value for key, value in values.items() if _is_own_role(key) and isinstance(value, str | AddedToken)}
    specific = _specific(values)
    extra = values[EXTRA] if isinstance(values.get(EXTRA), dict) else {}
    for added in (extra, {**own, **specific}):
        named |= {role: _piece(value, role) for role, value in added.items()}
    return {role: _piece(value, role) for role, value in named.items() if value is not None}


def _extra(values: Mapping[str, Any]) -> tuple[str | AddedToken, ...]:
    return () if isinstance(values.get(EXTRA), dict) else tuple(_piece(entry, EXTRA) for entry in _list(values))


def _list(values: Mapping[str, Any]) -> list[Any]:
    """A copy of the list of special pieces without a role."""
    extra = values.get(EXTRA)
    if extra is not None and not isinstance(extra, list):
        raise UnsupportedTokenizer(f"{EXTRA} must be a list or an object; it is neither")
    return list(extra or ())


def _specific(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Pieces of the checkpoint's own roles, under the key that transformers 5 has for them."""
    specific = values.get(SPECIFIC) or {}
    if not isinstance(specific, dict):
        raise UnsupportedTokenizer(f"{SPECIFIC} must be an object; it is not")
    return specific


def _piece(value: object, role: str) -> str | AddedToken:
    if isinstance(value, AddedToken):
        return value
    if not isinstance(value, str):
        raise UnsupportedTokenizer(f"{role} must be a text or a piece; it is {value!r:.40}")
    return _checked_text(value)


def _revived(value: Any) -> Any:
    """`value` with each object that stands for a piece as that piece."""
    if isinstance(value, dict):
        if value.get(MARK) == "AddedToken":
            return _token(value)
        return {key: _revived(item) for key, item in value.items()}
    return [_revived(item) for item in value] if isinstance(value, list) else value


def _special_token(entry: Mapping[str, Any]) -> AddedToken:
    return _token({**entry, "special": True})


def _token(entry: object) -> AddedToken:
    if not isinstance(entry, Mapping):
        raise PresetError("an added piece must be an object with a text as content; one is not")
    flags = {flag: entry[flag] for flag in FLAGS if flag in entry}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise PresetError("an added piece must have true or false as flags; one has not")
    return AddedToken(_checked_text(entry.get("content")), **flags)


def _checked_text(value: object) -> str:
    """A text of whole characters: JSON can hold half a surrogate pair, UTF-8 cannot."""
    if not isinstance(value, str) or any("\ud800" <= char <= "\udfff" for char in value):
        raise PresetError("an added piece must have a text as content; one has not")
    return value


def _checked_id(value: object) -> int:
    if type(value) is not int or not 0 <= value < LIMITS["vocab_size"]:
        raise PresetError(f"an added piece must have an id below {LIMITS['vocab_size']}; one has not")
    return value
