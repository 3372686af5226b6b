"""Reads members of a JSON object as APIs of other servers do: unknown members are ignored, and null means absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from electra_serve.errors import InvalidInput, MalformedRequest
from electra_serve.settings.model_names import MAX_NAME


class Members:
    """Members of a parsed body; raises `MalformedRequest` if it is not an object, or a member has a wrong type."""

    def __init__(self, payload: object) -> None:
        if not isinstance(payload, dict):
            raise MalformedRequest("the body must be a JSON object; got another type")
        self._members: Mapping[str, object] = payload

    @property
    def all(self) -> Mapping[str, object]:
        """Every member."""
        return self._members

    def get(self, name: str) -> object:
        """Returns a member; None if it is absent."""
        return self._members.get(name)

    def required(self, name: str) -> object:
        """Returns a member; raises `MalformedRequest` if it is absent."""
        value = self._members.get(name)
        if value is None:
            raise MalformedRequest(f"{name} is required; got none", field=name)
        return value

    def string(self, name: str) -> str | None:
        """Returns a string; None if it is absent."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, str):
            raise MalformedRequest(f"{name} must be a string; got another type", field=name)
        return value

    def model(self) -> str | None:
        """Returns the name of a model; None if it is absent or empty."""
        name = self.string("model")
        return name[: MAX_NAME + 1] if name else None  # no model has a longer name

    def choice(self, name: str, values: Sequence[str], default: str) -> str:
        """Returns one of `values`; raises `InvalidInput` for another string."""
        value = self.string(name)
        if value is None:
            return default
        if value not in values:
            raise InvalidInput(f"{name} must be one of {', '.join(values)}; got another", field=name)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Returns true or false."""
        value = self._members.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise MalformedRequest(f"{name} must be true or false; got another type", field=name)
        return value

    def count(self, name: str) -> int | None:
        """Returns a whole number of at least 1; None if it is absent."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise MalformedRequest(f"{name} must be a whole number; got another type", field=name)
        if value < 1:
            raise InvalidInput(f"{name} must be at least 1; got {value}", field=name)
        return value
