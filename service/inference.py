"""The one door for every transport: validate, submit, collect.

A transport turns its own message into an `EncodeRequest`, awaits `InferenceService.encode`, and turns the
`EncodeResult` or the `ServiceError` back. Nothing here knows which transport that was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import IntEnum

from service.tensors import DEFAULT_OUTPUTS, Outputs, RowOutput, TextInput, TokenInput


class Priority(IntEnum):
    """Who goes first in the queue. Lower values first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """What a caller wants encoded.

    Attributes:
        input: Ids or texts.
        model: A served model's name; None where just one is served.
        outputs: What to answer with; at least one.
        truncate: Cut what is longer than the model takes, instead of refusing it.
        client: Whose turn it is, for fairness between clients; any stable string.
        priority: Which requests go first.
        timeout_s: Seconds from now after which the caller no longer wants the answer; None: no limit.
    """

    input: TokenInput | TextInput
    model: str | None = None
    outputs: Outputs = DEFAULT_OUTPUTS
    truncate: bool = False
    client: str = ""
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """The answer.

    Attributes:
        model: The name of the model that computed it.
        outputs: What was asked for.
        rows: One per sequence, in the caller's order.
        tokens: Unmasked positions over all rows.
        truncated: Per row, whether it was cut.
    """

    model: str
    outputs: Outputs
    rows: tuple[RowOutput, ...]
    tokens: int
    truncated: tuple[bool, ...]
