"""The limit of descriptors, in a process of its own: once raised it stays."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from electra_serve.runtime.file_limit import RESERVED_DESCRIPTORS, fit_connections

PROGRAM = """
import resource
from electra_serve.runtime.file_limit import raise_descriptor_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
print(raise_descriptor_limit(), raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_a_process_takes_as_many_as_it_may_have() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    reported = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, timeout=60
    ).stdout.split()
    most = 2**20 if hard == resource.RLIM_INFINITY else hard
    assert [int(number) for number in reported] == [most] * 3


@pytest.mark.parametrize("descriptors", [2, 64, 256, 1024, 4096])
def test_limits_on_connections_leave_descriptors_in_reserve(descriptors: int) -> None:
    limits = fit_connections(descriptors, (4096, 4096))
    assert min(limits) >= 1
    assert sum(limits) <= max(descriptors - min(RESERVED_DESCRIPTORS, descriptors // 2), 2)


def test_limits_that_fit_stay() -> None:
    assert fit_connections(8192 + RESERVED_DESCRIPTORS, (4096, 4096)) == (4096, 4096)
    assert fit_connections(8191 + RESERVED_DESCRIPTORS, (4096, 4096)) == (4095, 4095)
