"""JSON → the settings of a model that is to be loaded."""

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
    """Parses strict JSON whose objects hold each key once.

    Raises:
        MalformedRequest: Anything else.
    """
    payload = parse_json(body, replace_surrogates=False)  # first, because it is the stricter one about everything else
    try:
        parse_unique(body)
    except InvalidText as error:
        raise MalformedRequest(f"the body cannot be used: {error}") from error
    return payload


def new_model(payload: object) -> ModelSettings:
    """The settings of a model that was not there.

    Args:
        payload: The body, parsed from JSON: what an entry of `models` in the settings may be.

    Raises:
        MalformedRequest: Not an object, or with an unknown field.
        InvalidInput: A value is not valid.
    """
    return _validate(_mapping(payload))


def changed_model(settings: ModelSettings, payload: object) -> ModelSettings:
    """The settings of a model that is there, some of them changed.

    Args:
        settings: Those it has.
        payload: The body, parsed from JSON: the fields that change, as a JSON merge patch (RFC 7396). So `limits`
            changes field by field, and null takes a field back to its default, or to the common settings.

    Raises:
        MalformedRequest: Not an object, or with an unknown field.
        InvalidInput: A value is not valid, or the name is another.
    """
    changes = _mapping(payload)
    if changes.get("name", settings.name) != settings.name:
        raise InvalidInput("name must be that of the model; received another: load a new model for that", field="name")
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
        raise MalformedRequest("the body must be a JSON object; received another type")
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
