"""Bounds of the size of a response, in numbers, and the bytes that it reserves."""

from __future__ import annotations

from electra_serve.errors import PayloadTooLarge
from electra_serve.serving.transit_budget import Transit


def check_values(values: int, most: int | None, advice: str) -> int:
    """Returns `values`; raises `PayloadTooLarge` for more than `most`."""
    if most is not None and values > most:
        raise PayloadTooLarge(f"a response must have at most {most} numbers; got {values}: {advice}")
    return values


def at_most(values: int, most: int | None) -> int:
    """Returns `values`, at most `most`."""
    return values if most is None else min(values, most)


async def reserve(transit: Transit | None, values: int) -> None:
    """Reserves the bytes of `values` numbers, if the request has a share of the transit budget; raises `Overloaded`."""
    if transit is not None:
        await transit.reserve_response(values)
