"""Turns pydantic's validation errors into one line: the value, its form, and the input.

`Origins` names a value as the operator wrote it: the flag, the variable, or the key in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

Location = Sequence[str | int]

OURS: Final = "value_error"  # pydantic's type for errors of our own validators
UNKNOWN: Final = "extra_forbidden"
_WITHOUT_VALUE: Final = frozenset({UNKNOWN, "json", "missing", "string_too_short"})
_NUMBER: Final = "must be a number"
_WHOLE: Final = "must be a whole number"
_BOOLEAN: Final = "must be true or false"
_TEXT: Final = "must be text"
_MAPPING: Final = "must be a mapping of its settings"
_FORMS: Final[Mapping[str, str | Callable[[Mapping[str, Any]], str]]] = MappingProxyType(
    {
        "bool_parsing": _BOOLEAN,
        "bool_type": _BOOLEAN,
        "dict_type": _MAPPING,
        UNKNOWN: "is not a setting",
        "finite_number": "must be a finite number",
        "float_parsing": _NUMBER,
        "float_type": _NUMBER,
        "greater_than": lambda bound: f"must be greater than {bound['gt']:g}",
        "greater_than_equal": lambda bound: f"must be at least {bound['ge']}",
        "int_from_float": _WHOLE,
        "int_parsing": _WHOLE,
        "int_parsing_size": _WHOLE,
        "int_type": _WHOLE,
        "less_than_equal": lambda bound: f"must be at most {bound['le']}",
        "literal_error": lambda choices: f"must be one of {choices['expected'].replace(' or ', ', ')}",
        "missing": "must be given",
        "model_attributes_type": _MAPPING,
        "model_type": _MAPPING,
        "string_pattern_mismatch": lambda form: f"must match {form['pattern']}",
        "string_too_short": "must not be empty",
        "string_type": _TEXT,
        "tuple_type": "must be a list",
    }
)


@dataclass(frozen=True, slots=True)
class Origins:
    """Source of each setting."""

    flags: Collection[str] = ()  # dotted names of the flags
    variables: Mapping[str, str] = field(default_factory=dict)  # environment variables by dotted name
    file: Path | None = None
    keys: Collection[str] = ()  # keys at the top of the file

    def name(self, location: Location) -> str:
        """Names the value at `location` as the operator wrote it.

        Example:
            >>> Origins(flags=["rest.port"]).name(("rest", "port")), Origins().name(("rest", "port"))
            ('--rest.port', 'rest.port')
        """
        dotted = _dotted(location)
        for length in range(len(location), 0, -1):
            source = self._source(_dotted(location[:length]))
            if source:
                return source if length == len(location) else f"{source}: {dotted}"
        return f"{dotted} in {self.file}" if location and location[0] in self.keys else dotted

    def _source(self, dotted: str) -> str:
        return f"--{dotted}" if dotted in self.flags else self.variables.get(dotted, "")


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))


def describe(error: ValidationError, origins: Origins) -> str:
    """Describes the first error in one line."""
    first = error.errors(include_url=False)[0]
    location = first["loc"]
    if first["type"] == OURS:
        return f"{origins.name(location)}: {form(first)}" if location else form(first)
    shown = "" if first["type"] in _WITHOUT_VALUE else _received(first.get("input"))
    return f"{origins.name(location)} {form(first)}{shown}"


def _received(value: object) -> str:
    if value is None:
        return "; got nothing"
    return f"; got {value!r:.80}" if isinstance(value, (str, int, float)) else ""


def form(error: ErrorDetails) -> str:
    """Returns the form that a value must have, or the message of our own validator."""
    found = _FORMS.get(error["type"])
    if found is None:
        return error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return found if isinstance(found, str) else found(error.get("ctx", {}))
