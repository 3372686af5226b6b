"""Form of the errors of each path or request: the service's own, or that of the server whose API the route is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.types import Scope

from electra_serve.api.rest.problems import ErrorFormat, as_problem

_STATE_KEY: Final = "electra_error_formats"
_PREFIXES_KEY: Final = "electra_error_format_prefixes"


def add_error_formats(app: Starlette, formats: Mapping[str, ErrorFormat]) -> None:
    """Adds forms by path; paths without one have the service's own."""
    known: Mapping[str, ErrorFormat] = getattr(app.state, _STATE_KEY, {})
    setattr(app.state, _STATE_KEY, {**known, **formats})


def add_error_format_below(app: Starlette, path: str, form: ErrorFormat) -> None:
    """Adds the form of a path and of all paths below it that have none of their own."""
    known: Mapping[str, ErrorFormat] = getattr(app.state, _PREFIXES_KEY, {})
    setattr(app.state, _PREFIXES_KEY, {**known, path: form})


def error_format(scope: Scope) -> ErrorFormat:
    """Returns the form for a request."""
    chosen: ErrorFormat | None = scope.get("state", {}).get(_STATE_KEY)
    if chosen is not None:
        return chosen
    state = getattr(scope.get("app"), "state", None)
    formats: Mapping[str, ErrorFormat] = getattr(state, _STATE_KEY, {})
    path: str = scope["path"]
    return formats.get(path) or _form_above(path, getattr(state, _PREFIXES_KEY, {}))


def use_error_format(scope: Scope, form: ErrorFormat) -> None:
    """Chooses the form for one request, instead of that of its path."""
    scope["state"][_STATE_KEY] = form


def _form_above(path: str, forms: Mapping[str, ErrorFormat]) -> ErrorFormat:
    for prefix, form in forms.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return form
    return as_problem
