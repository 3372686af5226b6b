"""The settings that the service has inside its container."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from electra_serve.settings.schema import Settings
from tests.integration.deploy.deployment import ROOT, container_environment

PRINT_SETTINGS = """
import argparse, os
from electra_serve.settings.loader import add_flags, read_settings
parser = argparse.ArgumentParser()
source = add_flags(parser)
print(read_settings(parser.parse_args([]), source, os.environ).model_dump_json())
"""


@pytest.fixture(scope="session")
def container_settings() -> Settings:
    """Read in a process of its own, which has the container's variables and none of ours."""
    environment = {name: value for name, value in container_environment().items() if name.startswith("ELECTRA_")}
    output = subprocess.check_output(
        [sys.executable, "-c", PRINT_SETTINGS], env=environment | {"PATH": os.defpath}, cwd=ROOT, timeout=60
    )
    return Settings.model_validate_json(output)
