"""Ordinary clients beside a hostile one."""

from __future__ import annotations

import asyncio

from tests.integration.process import ServiceProcess
from tests.load.callers import OK, Endpoint
from tests.load.payload import numbered


async def ask_as_another(process: ServiceProcess, requests: int) -> None:
    """Sends `requests` at a time over each transport, from another address than a hostile client; all are answered."""
    for endpoint in Endpoint.both(process.rest_port, process.grpc_port):
        caller = endpoint.caller()
        answers = await asyncio.gather(*(caller.ask(numbered(i, 16)) for i in range(requests)))
        await caller.close()
        assert {answer.code for answer in answers} == {OK}
