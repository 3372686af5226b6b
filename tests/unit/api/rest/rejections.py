"""Turns what is raised into a value, so that a property can speak of both outcomes."""

from __future__ import annotations

from collections.abc import Callable

from electra_serve.errors import ServiceError


def rejection(work: Callable[[], object]) -> ServiceError | None:
    """Returns the `ServiceError` that `work` raises, or None; other errors pass through."""
    try:
        work()
    except ServiceError as error:
        return error
    return None
