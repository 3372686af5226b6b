"""One tree from three sources, and one clear line for whatever is wrong with it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from electra_serve.errors import SettingsError
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import Settings


def read(
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    monkeypatch: pytest.MonkeyPatch | None = None,
) -> Settings:
    for name, value in (environment or {}).items():
        assert monkeypatch is not None
        monkeypatch.setenv(name, value)
    parser = argparse.ArgumentParser()
    source = add_flags(parser)
    return read_settings(parser.parse_args(flags), source, environment or {})


def test_defaults_serve_the_demo_on_loopback() -> None:
    settings = read()
    assert [model.name for model in settings.models] == ["electra_demo"]
    assert (settings.rest.host, settings.rest.port, settings.grpc.port) == ("127.0.0.1", 8080, 50051)


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "electra.yaml"
    config.write_text("rest: {port: 1, host: 0.0.0.0}\ngrpc: {port: 1}\nlimits: {max_sequences: 7}\n")
    environment = {"ELECTRA_CONFIG": str(config), "ELECTRA_REST__PORT": "2", "ELECTRA_GRPC__PORT": "2"}
    settings = read(["--rest.port", "3"], environment, monkeypatch)
    assert (settings.rest.port, settings.grpc.port, settings.limits.max_sequences) == (3, 2, 7)
    assert settings.rest.host == "0.0.0.0"
    assert settings.rest.max_body_bytes == Settings().rest.max_body_bytes


def test_models_are_presets_or_objects() -> None:
    settings = read(["--models", "electra_demo", "--models", '{"preset": "some/folder", "dtype": "bfloat16"}'])
    assert [(model.name, model.dtype) for model in settings.models] == [
        ("electra_demo", "auto"),
        ("folder", "bfloat16"),
    ]


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (["--rest.port", "70000"], {}, "rest.port: Input should be less than or equal to 65535; received '70000'"),
        ([], {"ELECTRA_REST__PROT": "1"}, "unknown setting in the environment: ELECTRA_REST__PROT"),
        ([], {"ELECTRA_GRCP__PORT": "1"}, "unknown setting in the environment: ELECTRA_GRCP__PORT"),
        (["--models", "a", "--models", "b/a"], {}, "each under its own name; received ['a', 'a']"),
        (["--batching.max_queue_sequences", "255"], {}, "limits.max_sequences (256) must not exceed"),
        (["--batching.max_window_sequences", "31"], {}, "max_window_sequences must be at least max_batch_sequences"),
        (["--lifecycle.drain_timeout_s", "0.9"], {}, "drain_timeout_s: Input should be greater than or equal to 1"),
        (["--models", '{"preset": "a", "device": "tpu"}'], {}, "models.0.device"),
        (["--models", '{"preset": "a", "colour": "red"}'], {}, "models.0.colour: Extra inputs are not permitted"),
        (
            ["--models", '{"preset": "/"}'],
            {},
            "name must be 1 to 128 printable characters without a space at either end; received ''",
        ),
        (["--admin.port", "1"], {}, "admin.port needs either admin.keys_file or admin.without_keys"),
        (
            ["--admin.port", "1", "--admin.keys_file", "k", "--admin.without_keys", "true"],
            {},
            "received both or neither",
        ),
        (["--metrics.port", "70000"], {}, "metrics.port: Input should be less than or equal to 65535"),
        (["--models", '{"preset": "a", "preset": "b"}'], {}, "--models must be valid JSON; 'preset' must occur once"),
        (
            [],
            {"ELECTRA_MODELS": '[{"preset": "a", "preset": "b"}]'},
            "ELECTRA_MODELS must be valid JSON; 'preset' must",
        ),
        (["--rest", '{"port": 1, "port": 2}'], {}, "--rest must be valid JSON; 'port' must occur once"),
        ([], {"ELECTRA_REST": '{"port": 1, "port": 2}'}, "ELECTRA_REST must be valid JSON; 'port' must occur once"),
        (
            [],
            {"electra_rest__port": "1", "ELECTRA_REST__PORT": "2"},
            "ELECTRA_REST__PORT must be set once; it is set as",
        ),
        (["--config", "/does/not/exist"], {}, "settings file /does/not/exist cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str], environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError) as refusal:
        read(flags, environment, monkeypatch)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rest: {prot: 1}", "rest.prot: Extra inputs are not permitted"),
        ("prot: 1", "prot: Extra inputs are not permitted"),
        ("rest: [", "cannot be read"),
        ("rest: {}\ngrpc: {}\nrest: {}", "cannot be read: line 3: 'rest' must occur once; it is on line 1 too"),
        ("rest: {port: 1, port: 2}", "cannot be read: line 1: 'port' must occur once"),
        ("1: 2", "cannot be read: line 1: each key must be a string"),
        ("- 1\n- 2", "must hold a mapping; it holds a list"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "electra.yaml"
    config.write_text(text)
    with pytest.raises(SettingsError) as refusal:
        read(["--config", str(config)])
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "variable",
    [
        "ELECTRA_SERVE_SERVICE_HOST",
        "ELECTRA_SERVE_SERVICE_PORT_GRPC",
        "ELECTRA_PORT",
        "ELECTRA_SERVE_PORT_8080_TCP_ADDR",
    ],
)
def test_what_kubernetes_sets_for_a_service_of_that_name_is_passed_over(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read([], {variable: "tcp://10.0.0.7:8080"}, monkeypatch) == Settings()


def test_the_queue_takes_the_largest_request_exactly() -> None:
    assert read(["--batching.max_queue_sequences", "256"]).limits.max_sequences == 256


def test_a_models_own_limits_count() -> None:
    settings = read(["--models", '{"preset": "a", "limits": {"max_sequences": 300}}', "--models", "b"])
    assert settings.max_sequences == 300


def test_admin_and_metrics_have_no_ports_unless_they_are_given_one() -> None:
    settings = read()
    assert (settings.admin.port, settings.metrics.port) == (None, None)
    settings = read(["--admin.port", "0", "--admin.keys_file", "keys", "--metrics.port", "9090"])
    assert (settings.admin.port, settings.metrics.port) == (0, 9090)
    assert read(["--admin.port", "1", "--admin.without_keys", "true"]).admin.port == 1
