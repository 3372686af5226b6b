"""The parser and its dispatch: exit codes, one-line errors, and what a start imports."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from electra_serve import __version__
from electra_serve.cli.main import main

NOT_NEEDED = {
    "fastapi",
    "google",
    "grpc",
    "httpx",
    "jax",
    "keras",
    "openvino",
    "prometheus_client",
    "starlette",
    "pyarrow",
    "structlog",
    "tensorflow",
    "tqdm",
    "uvicorn",
    "uvloop",
}
PROGRAM = """
import sys
from electra_serve.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
sys.stderr.write(" ".join(sys.modules))
"""


def test_it_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"electra-serve {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["dance"], ["serve", "--dance"]])
def test_an_unknown_or_missing_command_is_a_usage_error(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


def test_a_startup_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["healthcheck", "--config=/no/such/file.yaml"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("electra-serve: cannot read settings file /no/such/file.yaml: ")


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["healthcheck", "--rest.port=1", "--timeout=0.1"], 128 + signal.SIGTERM), (["serve", "--config=/no/such"], 0)],
    ids=["interrupted, as shells count it", "asked to stop before it served"],
)
def test_a_signal_ends_the_process(argv: list[str], code: int) -> None:
    program = "import signal, sys, electra_serve.cli.main as cli; cli.main(sys.argv[1:]); signal.raise_signal(15)"
    assert subprocess.run([sys.executable, "-c", program, *argv], check=False, timeout=60).returncode == code


@pytest.mark.parametrize(
    "argv", [["--help"], ["serve", "--help"], ["encode", "--help"], ["healthcheck", "--rest.port=1", "--timeout=0.1"]]
)
def test_help_and_health_check_start_without_server_and_engine(argv: list[str]) -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *argv], capture_output=True, text=True, check=True, timeout=60)
    assert not NOT_NEEDED & set(ran.stderr.split())
