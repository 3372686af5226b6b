"""Ordinary clients next to a hostile one."""

from __future__ import annotations

from benchmarks.load.clients import OK, ask_all
from tests.integration.process import ServiceProcess
from tests.load.payload import numbered


async def ask_as_another(process: ServiceProcess, requests: int) -> None:
    """Sends `requests` at once over each transport, from the probes' address; checks every response."""
    for endpoint in process.endpoints:
        outcomes = await ask_all([endpoint], [numbered(number, 16) for number in range(requests)])
        assert {outcome.code for outcome in outcomes} == {OK}
