"""Start of the real process, or the one line with the reason why it does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.integration.process import ServiceProcess, free_port, homeless, start
from tests.integration.standard import health_of
from tests.waiting import wait_until

SLOW_MODEL: Final = '{"preset": "electra_large_discriminator_uncased_en", "load_weights": false}'
PROMPT_S: Final = 5.0
"""Limit for the end of a process that has nothing to finish."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A start that must fail.

    Attributes:
        says: What its one line holds.
        flags: The command line.
        environment: Variables.
        yaml: The settings file.
    """

    says: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    yaml: str | None = None


MISTAKES: Final = {
    "a folder that is not there": Mistake("/nowhere/preset", ('--models={"preset": "/nowhere/preset"}',)),
    "a folder that is no preset": Mistake("config.json", (f'--models={{"preset": "{Path(__file__).parent}"}}',)),
    "weights that are not here": Mistake(
        "presets pull",
        ("--models=electra_small_discriminator_uncased_en", "--hub.offline=true", "--hub.cache_dir=/nowhere"),
    ),
    "other weights than those that are pinned": Mistake(
        "its sha256 must be", (f'--models={{"preset": "electra_demo", "sha256": "{"0" * 64}"}}',)
    ),
    "two models of one name": Mistake("models", ("--models=electra_demo", "--models=electra_demo")),
    "a port out of range": Mistake("rest.port", ("--rest.port=99999",)),
    "a variable that is no setting": Mistake("ELECTRA_REST__PRT", environment={"ELECTRA_REST__PRT": "1"}),
    "a variable of another type": Mistake(
        "ELECTRA_LIMITS__MAX_SEQUENCES", environment={"ELECTRA_LIMITS__MAX_SEQUENCES": "many"}
    ),
    "settings that contradict each other": Mistake("max_queue_sequences", ("--batching.max_queue_sequences=1",)),
    "an admin API that is open by accident": Mistake("admin.keys_file", ("--admin.port=0",)),
    "admin keys that are not there": Mistake("/nowhere/keys", ("--admin.port=0", "--admin.keys_file=/nowhere/keys")),
    "a file that is not there": Mistake("nowhere.yaml", ("--config=nowhere.yaml",)),
    "a file that is no YAML": Mistake("settings", yaml="rest: [1"),
    "a file with a key that is no setting": Mistake("rest.prt", yaml="rest: {prt: 1}"),
    "a file with a section that occurs twice": Mistake(
        "line 3: 'security' must occur once", yaml="security: {api_keys_file: keys}\nlog: {}\nsecurity: {}"
    ),
    "a flag with a key that occurs twice": Mistake(
        "as JSON: 'preset' must occur once", ('--models={"preset": "a", "preset": "b"}',)
    ),
    "models that are neither names nor JSON": Mistake(
        "ELECTRA_MODELS must be presets separated by commas", environment={"ELECTRA_MODELS": "a,,b"}
    ),
    "a file that is no mapping": Mistake("settings", yaml="- 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_the_start_with_one_line(mistake: Mistake, tmp_path: Path) -> None:
    flags = mistake.flags
    if mistake.yaml is not None:
        (tmp_path / "settings.yaml").write_text(mistake.yaml)
        flags = (f"--config={tmp_path / 'settings.yaml'}",)
    with start(tmp_path, *flags, environment=mistake.environment) as process:
        assert process.wait() == 1
        assert_one_line(process, mistake.says)


@pytest.mark.parametrize("transport", ["rest", "grpc", "metrics"])
def test_a_taken_port_ends_the_start_with_one_line(transport: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(tmp_path, f"--{transport}.port={port}") as process:
            assert process.wait() == 1
            assert_one_line(process, str(port))


def test_a_flag_that_is_no_setting_is_a_usage_error(tmp_path: Path) -> None:
    with start(tmp_path, "--rest.prt=1") as process:
        assert process.wait() == 2
        assert "--rest.prt=1" in process.complaints[-1]
        assert "Traceback" not in process.stderr


def test_a_user_without_a_home_serves_what_needs_no_fetching(tmp_path: Path) -> None:
    with start(tmp_path, "--log.format=json", prefix=homeless()) as process:
        process.wait_ready()
        assert httpx.post(f"{process.url}/v1/encode", json={"text": "hi"}).status_code == 200
        process.terminate()
        assert process.wait() == 0
        assert process.complaints == []


def test_a_user_without_a_home_gets_the_setting_that_fetching_needs(tmp_path: Path) -> None:
    if "setpriv" not in homeless():
        pytest.skip("needs root")
    with start(tmp_path, "--models=hf://org/repo", prefix=homeless()) as process:
        assert process.wait() == 1
        assert_one_line(process, "hub.cache_dir must name a folder, because the user has no home directory")


def assert_one_line(process: ServiceProcess, says: str) -> None:
    """Fails unless the error of the process is one line with the reason, and standard output is empty."""
    (line,) = process.complaints
    assert line.startswith("electra-serve: ")
    assert says in line
    assert "Traceback" not in process.stderr
    assert process.stdout == ""


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A process that listens and loads, set up by flag, environment and file, each above the next."""
    folder = tmp_path_factory.mktemp("loading")
    flag_port, variable_port = free_port(), free_port()
    file = folder / "settings.yaml"
    file.write_text(
        f"models: [{SLOW_MODEL}]\n"
        f"rest: {{port: {free_port()}, max_body_bytes: 100}}\n"
        f"grpc: {{port: {free_port()}}}\n"
        "log: {format: console}\n"
    )
    variables = {
        "ELECTRA_CONFIG": str(file),
        "ELECTRA_REST__PORT": str(free_port()),
        "ELECTRA_GRPC__PORT": str(variable_port),
        "ELECTRA_LOG__FORMAT": "json",
    }
    with start(folder, f"--rest.port={flag_port}", environment=variables, ports=False) as process:
        started = ServiceProcess(process.popen, flag_port, variable_port, folder)
        started.wait_live()
        yield started


def test_flags_win_over_variables_and_variables_over_the_file(loading: ServiceProcess) -> None:
    assert loading.status("/livez") == 200  # the flag's port
    with grpc.insecure_channel(loading.target) as channel:  # the variable's port
        grpc.channel_ready_future(channel).result(timeout=10)
    wait_until(lambda: bool(loading.events))  # the variable's format
    too_large = httpx.post(f"{loading.url}/v1/encode", json={"text": "a" * 100})
    assert too_large.status_code == 413  # the file's limit
    assert httpx.get(f"{loading.url}/v1/models").json()["models"][0]["preset"] in SLOW_MODEL  # the file's model


def test_a_process_that_loads_is_alive_and_not_ready(loading: ServiceProcess) -> None:
    ready = httpx.get(f"{loading.url}/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "model_not_ready")
    assert int(ready.headers["retry-after"]) >= 1
    assert loading.status("/livez") == 200
    assert httpx.get(f"{loading.url}/v1/models").json()["models"][0]["state"] == "loading"
    assert (
        'electra_model_ready{model="electra_large_discriminator_uncased_en"} 0.0'
        in httpx.get(f"{loading.url}/metrics").text
    )


def test_requests_to_a_loading_model_get_a_retry_delay(loading: ServiceProcess) -> None:
    response = httpx.post(f"{loading.url}/v1/encode", json={"token_ids": [[1]]})
    assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
    with grpc.insecure_channel(loading.target) as channel:
        assert health_of(channel) == "NOT_SERVING"
        request = pb.EncodeRequest(text=pb.TextInput(texts=[pb.Text()]))
        call = EncoderServiceStub(channel).Encode.future(request, timeout=10)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert {"electra-error-code": "model_not_ready", "grpc-retry-pushback-ms": "1000"}.items() <= dict(
            call.trailing_metadata()
        ).items()


def test_a_signal_ends_the_loading(tmp_path: Path) -> None:
    with start(tmp_path, f"--models={SLOW_MODEL}", "--log.format=json") as process:
        process.wait_live()
        assert process.status("/readyz") == 503
        process.terminate()
        assert process.wait(PROMPT_S) == 0
        assert process.complaints == []
