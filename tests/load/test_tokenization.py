"""Long texts from one client: the tokenizer takes clients in turn, and other clients hardly notice.

The hostile client sends without pause over 64 connections and ignores `Retry-After`. Its texts are too long for the
model, so each is rejected after it was tokenized. Larger ones fill the queue, and most are rejected before.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat, takewhile
from pathlib import Path
from typing import Final

import pytest

from benchmarks.load.clients import OK, Endpoint, Outcome, closed_loop
from benchmarks.load.open_loop import percentile_s
from benchmarks.stand_in.script import Script
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.server.lifecycle import EXIT_OK
from electra_serve.tensors import BatchShape, Truncation
from tests.load.conftest import Report
from tests.load.flood import flood
from tests.load.gauges import gauge, scrape
from tests.load.growth import resident_bytes
from tests.load.payload import Payload
from tests.load.probes import Probes
from tests.load.stand_in import stand_in
from tests.waiting import wait_until

SCRIPT: Final = Script(batch_s=0.02, position_s=4e-5)
"""A text of 512 ids takes 40 ms."""
CONNECTIONS: Final = 64
MARGIN_S: Final = 2.0
"""Time for the attack to start."""
HOSTILE: Final = "127.0.0.3"
MAX_GROWTH_BYTES: Final = 400_000_000
QUEUED: Final = "electra_queued_characters"
LENGTH: Final = 512
SENTENCE: Final = "the quick brown fox jumps over the lazy dog, and runs away from it as fast as it can. "
TEXT: Final = (SENTENCE * 30)[:2500]
EXPENSIVE: Final = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}"
"""Case folding expands it to 18 characters."""
RATIO: Final = 2.0
"""Largest ratio of another client's p99 to its p99 alone, without one batch."""


ATTACKS: Final = {
    "english": (SENTENCE * 300)[:20_000],
    "expensive": (EXPENSIVE + " ") * 10_000,
    "overload": (EXPENSIVE + " ") * 30_000,
}
"""Texts of the hostile client."""
REJECTED: Final = {"422", "429"}
"""HTTP statuses of texts that are too long, and of those over the queue's limit."""


@dataclass(frozen=True, slots=True)
class TextPayload(Payload):
    """A text that is cut at its end.

    Attributes:
        text: The text; its ids are `rows`.
    """

    text: str = ""

    def rest(self) -> bytes:
        """See `Payload.rest`."""
        return json.dumps({"text": [self.text], "truncation": "right", "outputs": ["mean_output"]}).encode()

    def message(self, request_id: str = "") -> pb.EncodeRequest:
        """See `Payload.message`."""
        return pb.EncodeRequest(
            request_id=request_id,
            text=pb.TextInput(texts=[pb.Text(first=self.text)]),
            truncation=pb.TRUNCATION_RIGHT,
            outputs=[pb.OUTPUT_MEAN],
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """Extent of a test.

    Attributes:
        seconds: Time that another client sends alone, and then again during the attack.
        connections: Connections of the hostile client.
    """

    seconds: float
    connections: int = CONNECTIONS


SCALES: Final = [
    pytest.param(Scale(1.0), id="short"),
    pytest.param(Scale(30.0), id="long", marks=pytest.mark.long),
]


@pytest.mark.parametrize(
    ("attack", "scale"),
    [
        pytest.param("overload", Scale(1.0, connections=32), id="overload-short"),
        *(pytest.param(attack, Scale(30.0), id=f"{attack}-long", marks=pytest.mark.long) for attack in ATTACKS),
    ],
)
def test_long_texts_of_one_client(attack: str, scale: Scale, tmp_path: Path, report: Report) -> None:
    with stand_in(tmp_path, SCRIPT, "--lifecycle.drain_timeout_s=10") as process:
        endpoints = process.endpoints
        before = resident_bytes(process)
        alone = asyncio.run(ask(endpoints, scale))
        body = json.dumps({"text": ATTACKS[attack]}, ensure_ascii=False).encode()
        attacking_s = scale.seconds + MARGIN_S
        with (
            flood(process, "rest", body, seconds=attacking_s, connections=scale.connections, source=HOSTILE) as figures,
            Probes(process) as probes,
        ):
            wait_until(lambda: gauge(scrape(process), "electra_requests_in_flight") > scale.connections / 2)
            attacked = asyncio.run(ask(endpoints, scale))
            queued = gauge(scrape(process), QUEUED)
            grown = resident_bytes(process) - before
        ratio = (percentile_s(attacked, 99) - SCRIPT.seconds(BatchShape(1, LENGTH))) / percentile_s(alone, 99)
        report(
            f"{attack}: another client's p50 {_ms(alone, 50)} alone, {_ms(attacked, 50)} attacked, p99 "
            f"{_ms(alone, 99)} and {_ms(attacked, 99)} ({ratio:.2f}× without a batch); probes p50 "
            f"{_quantile_ms(probes.seconds, 0.5)}, p99 {_quantile_ms(probes.seconds, 0.99)}; {queued:.0f} characters "
            f"queued, memory +{grown / 1e6:.0f} MB, the hostile client gets {figures.result()['errors']}"
        )
        assert {outcome.code for outcome in (*alone, *attacked)} == {OK}
        assert grown <= MAX_GROWTH_BYTES
        assert probes.failures == []
        assert figures.result()["requests"] == 0
        assert set(figures.result()["errors"]) == (REJECTED if attack == "overload" else {"422"})
        report.promise(ratio <= RATIO, f"p99 is at most {RATIO:g} times what it is alone, plus a batch")
        process.terminate()
        assert process.wait() == EXIT_OK


async def ask(endpoints: Sequence[Endpoint], scale: Scale) -> list[Outcome]:
    """Sends texts of 2,500 characters, one at a time over each transport."""
    tokenizer = load_tokenizer(resolve_preset("electra_demo", load_weights=False))
    assert not isinstance(tokenizer, NoTokenizer)
    ids = tokenizer.encode([TEXT], max_length=LENGTH, truncation=Truncation.RIGHT).token_ids[0]
    payload = TextPayload(rows=(tuple(ids.tolist()),), text=TEXT)
    until_s = time.monotonic() + scale.seconds
    requests = takewhile(lambda _: time.monotonic() < until_s, repeat(payload))
    return await closed_loop(endpoints, len(endpoints), requests)


def _ms(outcomes: Sequence[Outcome], percent: float) -> str:
    return f"{percentile_s(outcomes, percent) * 1e3:.0f} ms"


def _quantile_ms(seconds: Sequence[float], part: float) -> str:
    return f"{sorted(seconds)[int(part * len(seconds))] * 1e3:.0f} ms"
