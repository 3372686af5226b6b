"""Long texts from one client: they take their turns at the tokenizer, and other clients hardly notice.

The hostile client has 64 connections that each send the next request as soon as the last one is answered, and do not
heed `Retry-After`. Its texts become too long for the model, so each of them is rejected after it was tokenized; larger
ones fill the queue, and most of them are rejected before.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.server.lifecycle import EXIT_OK
from electra_serve.tensors import BatchShape, Truncation
from tests.integration.process import ServiceProcess, wait_until
from tests.load.callers import OK, Caller, Endpoint
from tests.load.conftest import Report
from tests.load.gauges import gauge, scrape
from tests.load.growth import resident_bytes
from tests.load.open_loop import Outcome, percentile_s
from tests.load.payload import Payload
from tests.load.probes import Probes
from tests.load.script import Script
from tests.load.stand_in import stand_in

SCRIPT: Final = Script(batch_s=0.02, position_s=4e-5)
"""A text of 512 ids takes 40 ms."""
CONNECTIONS: Final = 64
MARGIN_S: Final = 2.0
"""Time that the attack has to start."""
HOSTILE: Final = "127.0.0.3"
MAX_GROWTH_BYTES: Final = 400_000_000
QUEUED: Final = "electra_queued_characters"
LENGTH: Final = 512
SENTENCE: Final = "the quick brown fox jumps over the lazy dog, and runs away from it as fast as it can. "
TEXT: Final = (SENTENCE * 30)[:2500]
EXPENSIVE: Final = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}"
"""Folding makes 18 characters of it."""
RATIO: Final = 2.0
"""Of another client's p99 to its p99 alone, at most, plus one batch."""


ATTACKS: Final = {
    "english": (SENTENCE * 300)[:20_000],
    "expensive": (EXPENSIVE + " ") * 10_000,
    "overload": (EXPENSIVE + " ") * 30_000,
}
"""Texts of the hostile client."""


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
        endpoints = Endpoint.both(process.rest_port, process.grpc_port)
        before = resident_bytes(process)
        alone = asyncio.run(ask(endpoints, scale))
        with hostile(process, attack, scale) as codes, Probes(process) as probes:
            wait_until(lambda: gauge(scrape(process), "electra_requests_in_flight") > scale.connections / 2)
            attacked = asyncio.run(ask(endpoints, scale))
            queued = gauge(scrape(process), QUEUED)
            grown = resident_bytes(process) - before
        ratio = (percentile_s(attacked, 99) - SCRIPT.seconds(BatchShape(1, LENGTH))) / percentile_s(alone, 99)
        report(
            f"{attack}: another client's p50 {_ms(alone, 50)} alone, {_ms(attacked, 50)} attacked, p99 "
            f"{_ms(alone, 99)} and {_ms(attacked, 99)} ({ratio:.2f}× without a batch); probes p50 "
            f"{_quantile_ms(probes.seconds, 0.5)}, p99 {_quantile_ms(probes.seconds, 0.99)}; {queued:.0f} characters "
            f"wait, memory +{grown / 1e6:.0f} MB, the hostile client gets {dict(codes.result())}"
        )
        assert {outcome.code for outcome in (*alone, *attacked)} == {OK}
        assert grown <= MAX_GROWTH_BYTES
        assert probes.failures == []
        expected = {"invalid_input", "overloaded"} if attack == "overload" else {"invalid_input"}
        assert set(codes.result()) == expected
        report.promise(ratio <= RATIO, f"p99 is at most {RATIO:g} times what it is alone, plus a batch")
        process.terminate()
        assert process.wait() == EXIT_OK


async def ask(endpoints: Sequence[Endpoint], scale: Scale) -> list[Outcome]:
    """Sends texts of 2,500 characters, one after the other, over both transports in turn."""
    tokenizer = load_tokenizer(resolve_preset("electra_demo", load_weights=False))
    assert not isinstance(tokenizer, NoTokenizer)
    ids = tokenizer.encode([TEXT], max_length=LENGTH, truncation=Truncation.RIGHT).token_ids[0]
    payload = TextPayload(rows=(tuple(ids.tolist()),), text=TEXT)
    callers: list[Caller] = [endpoint.caller() for endpoint in endpoints]
    outcomes: list[Outcome] = []
    until_s = time.monotonic() + scale.seconds
    while (sent_s := time.monotonic()) < until_s:
        answer = await callers[len(outcomes) % len(callers)].ask(payload)
        outcomes.append(Outcome(0, sent_s, answer.seconds, answer.code, answer.retry_after_s))
    await asyncio.gather(*(caller.close() for caller in callers))
    return outcomes


@contextmanager
def hostile(process: ServiceProcess, attack: str, scale: Scale) -> Iterator[Future[Counter[str]]]:
    """Attacks from a process of its own; yields the codes that it gets, which are known at the end."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.submit(run_attack, process.rest_port, attack, scale)


def run_attack(port: int, attack: str, scale: Scale) -> Counter[str]:
    """Returns how often each code came."""
    body = json.dumps({"text": ATTACKS[attack]}, ensure_ascii=False).encode()
    head = f"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    until_s = time.monotonic() + scale.seconds + MARGIN_S
    return asyncio.run(_attack(port, f"{head}\r\n".encode() + body, scale.connections, until_s))


async def _attack(port: int, request: bytes, connections: int, until_s: float) -> Counter[str]:
    codes: Counter[str] = Counter()

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(HOSTILE, 0))
        while time.monotonic() < until_s:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            size = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
            answer = json.loads(await reader.readexactly(int(size.partition(":")[2])))
            codes[answer.get("code", OK)] += 1
            if "connection: close" in head:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(HOSTILE, 0))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(call())
    return codes


def _ms(outcomes: Sequence[Outcome], percent: float) -> str:
    return f"{percentile_s(outcomes, percent) * 1e3:.0f} ms"


def _quantile_ms(seconds: Sequence[float], part: float) -> str:
    return f"{sorted(seconds)[int(part * len(seconds))] * 1e3:.0f} ms"
