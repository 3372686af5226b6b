"""Parses the settings of a model from JSON."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from electra_serve.api.rest.body import parse_json
from electra_serve.errors import InvalidInput, MalformedRequest
from electra_serve.settings.messages import OURS, UNKNOWN, form
from electra_serve.settings.schema import ModelSettings
from electra_serve.settings.unique_keys import InvalidText
from electra_serve.settings.unique_keys import parse_json as parse_unique


def parse_unambiguous(body: bytes) -> object:
    """Parses strict JSON; raises `MalformedRequest` for repeated keys too."""
    payload = parse_json(body, replace_surrogates=False)  # stricter in all other respects
    try:
        parse_unique(body)
    except InvalidText as error:
        raise MalformedRequest(f"the body cannot be used: {error}") from error
    return payload


def new_model(payload: object) -> ModelSettings:
    """Returns the settings of a new model, from a parsed body like an entry of `models` in the settings.

    Raises `MalformedRequest` for an unknown field or no object, and `InvalidInput` for an invalid value.
    """
    return _validate(_mapping(payload))


def changed_model(settings: ModelSettings, payload: object) -> ModelSettings:
    """Returns the settings of an existing model, changed by a parsed JSON merge patch (RFC 7396).

    `limits` changes field by field. Null resets a field to its default, or to the common settings.

    Raises `MalformedRequest` for an unknown field or no object, and `InvalidInput` for a value or another name.
    """
    changes = _mapping(payload)
    if changes.get("name", settings.name) != settings.name:
        raise InvalidInput("name must be that of the model; got another: load a new model instead", field="name")
    return _validate(_patched(settings.model_dump(exclude_unset=True), changes))


def _patched(fields: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    patched = dict(fields)
    for key, change in changes.items():
        before = patched.get(key)
        if change is None:
            patched.pop(key, None)
        elif isinstance(change, Mapping) and isinstance(before, Mapping):
            patched[key] = _patched(before, change)
        else:
            patched[key] = change
    return patched


def _mapping(payload: object) -> Mapping[str, object]:
    if not isinstance(payload, dict):
        raise MalformedRequest("the body must be a JSON object; got another type")
    return payload


def _validate(fields: Mapping[str, object]) -> ModelSettings:
    try:
        return ModelSettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == UNKNOWN:
            known = ", ".join(ModelSettings.model_fields)
            raise MalformedRequest(f"the fields are {known}; received an unknown one, or one within them") from error
        field = ".".join(str(part) for part in first["loc"])
        message = form(first) if first["type"] == OURS else f"{field} {form(first)}"
        raise InvalidInput(message, field=field or None) from error
