"""Lines that `electra-serve serve` prints when it is ready."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys

import pytest

from electra_serve import __version__
from electra_serve.cli.serve import SWITCH_INTERVAL_S, _announce, shows_progress
from electra_serve.serving.model_info import ModelInfo, ModelState
from electra_serve.settings.schema import Settings

WITHOUT_SERVER = """
import sys, uvloop
from electra_serve.cli.serve import serve
from electra_serve.settings.schema import Settings

def run(main):
    main.close()
    print(sys.getswitchinterval())
    return 0

uvloop.run = run
serve(Settings())
"""


def test_threads_hand_over_the_gil_soon() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_SERVER], capture_output=True, text=True, check=True)
    assert float(run.stdout) == pytest.approx(SWITCH_INTERVAL_S)


def model(name: str, *, text: bool = True, weights: str = "pretrained") -> ModelInfo:
    return ModelInfo(name, f"kaggle://{name}", ModelState.READY, text=text, weights=weights)


def announced(capsys: pytest.CaptureFixture[str], *models: ModelInfo, **settings: object) -> list[str]:
    _announce(Settings.model_validate(settings))(8080, 50051, models)
    return capsys.readouterr().out.splitlines()


def test_it_names_the_addresses_that_this_machine_reaches(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = announced(capsys, model("a"), rest={"host": "0.0.0.0"}, grpc={"host": "::"})
    assert first == f"electra-serve {__version__} is ready: REST on http://127.0.0.1:8080, gRPC on [::1]:50051"
    assert second == "Playground: http://127.0.0.1:8080/  API reference: http://127.0.0.1:8080/docs"


def test_it_names_no_page_if_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Playground" not in "".join(announced(capsys, model("a"), rest={"playground": False}))


@pytest.mark.parametrize(
    ("terminal", "term", "log_format", "shown"),
    [
        (True, "xterm", "auto", True),
        (True, "xterm", "console", True),
        (True, "xterm", "json", False),
        (True, "dumb", "auto", False),
        (False, "xterm", "console", False),
    ],
)
def test_progress_is_shown_to_people_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, log_format: str, shown: bool
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    settings = Settings.model_validate({"log": {"format": log_format}})
    assert shows_progress(settings, {"TERM": term}) == shown


@pytest.mark.parametrize(
    ("text", "member", "value"), [(True, "text", "Hello, world!"), (False, "token_ids", [[2, 1, 3]])]
)
def test_the_first_request_is_one_that_the_first_model_takes(
    capsys: pytest.CaptureFixture[str], text: bool, member: str, value: object
) -> None:
    *_, line = announced(capsys, model("it's", text=text), model("b"))
    words = shlex.split(line.removeprefix("Try: "))
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8080/v1/encode"]
    assert json.loads(words[-1]) == {"model": "it's", member: value, "outputs": ["mean_output"]}


def test_it_warns_of_each_model_with_random_weights(capsys: pytest.CaptureFixture[str]) -> None:
    lines = announced(capsys, model("a", weights="random"), model("b"), model("c", weights="random"))
    assert lines[2:-1] == [f"The weights of {name} are random: its outputs mean nothing." for name in "ac"]


def test_curl_gets_the_options_that_tls_and_keys_need(capsys: pytest.CaptureFixture[str]) -> None:
    security = {"tls_certificate": "c.pem", "tls_key": "k.pem", "tls_client_ca": "ca.pem", "api_keys_file": "keys"}
    *_, line = announced(capsys, model("a"), security=security)
    options = "--cacert CA_FILE --cert CERT_FILE --key KEY_FILE -H 'authorization: Bearer YOUR_KEY'"
    assert line.startswith(f"Try: curl -s {options} https://127.0.0.1:8080/v1/encode ")
