"""One tree from three sources, and one clear line for whatever is wrong with it."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from electra_serve.errors import SettingsError
from electra_serve.settings.loader import add_flags, read_settings, variable_names
from electra_serve.settings.schema import BatchingSettings, LimitSettings, Settings


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
    ("text", "names"),
    [
        ("electra_demo", ["electra_demo"]),
        (" ./one , hf://org/two@main ", ["one", "two"]),
        ('{"preset": "./a,b", "name": "three"}', ["three"]),
        ('["./a,b", {"preset": "two"}]', ["a,b", "two"]),
    ],
)
def test_models_are_text_wherever_they_are_given(
    text: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "electra.yaml"
    config.write_text(yaml.safe_dump({"models": text}))
    assert [model.name for model in read(["--config", str(config)]).models] == names
    assert [model.name for model in read(["--models", text]).models] == names
    assert [model.name for model in read(["--models", text, "--models", "last"]).models] == [*names, "last"]
    assert [model.name for model in read([], {"ELECTRA_MODELS": text}, monkeypatch).models] == names


@pytest.mark.parametrize("text", ["", " ", ",", "a,", "a,,b", 'a,{"preset": "b"}'])
def test_text_that_is_no_list_of_models_says_what_it_may_be(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "must be presets separated by commas, or a list of presets and mappings; got "
    with pytest.raises(SettingsError, match=re.escape(f"--models {said}{text!r}")):
        read(["--models", text])
    with pytest.raises(SettingsError, match=re.escape(f"ELECTRA_MODELS {said}{text!r}")):
        read([], {"ELECTRA_MODELS": text}, monkeypatch)


@pytest.mark.parametrize("text", ["models: electra_demo", "models: {preset: electra_demo}", "models: [electra_demo]"])
def test_a_file_may_hold_one_model_in_any_form(text: str, tmp_path: Path) -> None:
    config = tmp_path / "electra.yaml"
    config.write_text(text)
    assert [model.preset for model in read(["--config", str(config)]).models] == ["electra_demo"]


@pytest.mark.parametrize("text", ["", "# rest:\n#   port: 1\n", "---\n", "rest:\n  # port: 1\nlog: {}\nhub: ~\n"])
def test_a_file_without_settings_changes_none(text: str, tmp_path: Path) -> None:
    config = tmp_path / "electra.yaml"
    config.write_text(text)
    assert read(["--config", str(config)]).model_dump() == Settings().model_dump()


SECTIONS = {f"ELECTRA_{name.upper()}" for name in Settings.model_fields}
LEAVES = sorted(set(variable_names()) - SECTIONS - {"ELECTRA_REST__CORS_ORIGINS"})  # which names its entries


def bad_value(variable: str) -> str | None:
    """Text that the setting does not take; None if it takes any."""
    section, name = variable.removeprefix("ELECTRA_").lower().split("__")
    annotation = type(getattr(Settings(), section)).model_fields[name].annotation
    return None if annotation is str else "nonsense"


@pytest.mark.parametrize("variable", [leaf for leaf in LEAVES if bad_value(leaf)])
def test_every_setting_is_named_as_it_was_given(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable, raising=False)
    section, name = variable.removeprefix("ELECTRA_").lower().split("__")
    config = tmp_path / "electra.yaml"
    config.write_text(f"{section}: {{{name}: nonsense}}")
    with pytest.raises(SettingsError) as of_file:
        read(["--config", str(config)])
    with pytest.raises(SettingsError) as of_flag:
        read([f"--{section}.{name}", "nonsense"])
    with pytest.raises(SettingsError) as of_variable:
        read([], {variable: "nonsense"}, monkeypatch)
    forms = "(a whole number|a number|true or false|one of '.*'); got 'nonsense'"
    assert re.fullmatch(f"{section}.{name} in {config} must be {forms}", str(of_file.value))
    assert re.fullmatch(f"--{section}.{name} must be {forms}", str(of_flag.value))
    assert re.fullmatch(f"{variable} must be {forms}", str(of_variable.value))


ORIGINS = ("https://app.example", "http://localhost:3000", "http://[::1]:8080", "tauri://localhost")


@pytest.mark.parametrize("text", [" , ".join(ORIGINS), json.dumps(ORIGINS)])
def test_origins_are_text_or_a_list(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "electra.yaml"
    for content in (text, list(ORIGINS)):
        config.write_text(yaml.safe_dump({"rest": {"cors_origins": content}}))
        assert read(["--config", str(config)]).rest.cors_origins == ORIGINS
    assert read(["--rest.cors_origins", text]).rest.cors_origins == ORIGINS
    assert read([], {"ELECTRA_REST__CORS_ORIGINS": text}, monkeypatch).rest.cors_origins == ORIGINS


def test_the_flag_of_the_origins_may_be_repeated_and_they_are_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = ORIGINS
    flags = ["--rest.cors_origins", first, "--rest.cors_origins", second]
    assert read(flags).rest.cors_origins == (first, second)
    assert read(["--rest.cors_origins", "*"]).rest.cors_origins == ("*",)
    assert read().rest.cors_origins == ()
    assert read([], {"ELECTRA_REST__CORS_ORIGINS": ""}, monkeypatch).rest.cors_origins == ()


@pytest.mark.parametrize(
    "origin",
    [
        "app.example",
        "https://app.example/",
        "https://App.example",
        "https://a:443",
        "http://a:80",
        "null",
        "https://*.a",
    ],
)
def test_an_origin_that_no_browser_sends_is_rejected(origin: str) -> None:
    said = "--rest.cors_origins: rest.cors_origins.1 must be * or scheme://host[:port] in lower case, "
    with pytest.raises(SettingsError, match=re.escape(said)):
        read(["--rest.cors_origins", f"https://a,{origin}"])


@pytest.mark.parametrize("section", sorted(set(Settings.model_fields) - {"models"}))
@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{"])
def test_a_whole_section_is_a_json_object(section: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"ELECTRA_{section.upper()}"
    with pytest.raises(SettingsError, match=re.escape(f"{variable} must be a JSON object; got {text!r}")):
        read([], {variable: text}, monkeypatch)


def test_the_flag_is_named_if_a_variable_is_wrong_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^--rest\.port must be"):
        read(["--rest.port", "x"], {"ELECTRA_REST__PORT": "y"}, monkeypatch)


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ([], {"ELECTRA_REST": '{"port": "x"}'}, "ELECTRA_REST: rest.port must be a whole number; got 'x'"),
        ([], {"ELECTRA_MODELS": '{"preset": "a", "dtype": "x"}'}, "ELECTRA_MODELS: models.0.dtype must be one of"),
        ([], {"ELECTRA_MODELS": "5,[]"}, "ELECTRA_MODELS must be presets separated by commas"),
        ([], {"ELECTRA_MODELS": "[5]"}, "ELECTRA_MODELS: models.0 must be a preset or a mapping with one; got 5"),
        (
            [],
            {"ELECTRA_MODELS": "[{"},
            "ELECTRA_MODELS must be presets separated by commas, or a",
        ),
        (["--models", "[{"], {}, "presets and mappings, as JSON: line 1, column 3: "),
        (["--models", '{"name": "a"}'], {}, "--models: models.0.preset must be given"),
        (["--limits.max_timeout_s", "inf"], {}, "--limits.max_timeout_s must be a finite number; got 'inf'"),
        (["--limits.max_timeout_s", "nan"], {}, "--limits.max_timeout_s must be a finite number; got 'nan'"),
        (["--limits.max_timeout_s", "0"], {}, "--limits.max_timeout_s must be greater than 0; got '0'"),
        (["--rest.port", "70000"], {}, "--rest.port must be at most 65535; got '70000'"),
        ([], {"ELECTRA_REST__PROT": "1"}, "unknown setting in the environment: ELECTRA_REST__PROT"),
        ([], {"ELECTRA_GRCP__PORT": "1"}, "unknown setting in the environment: ELECTRA_GRCP__PORT"),
        (["--models", "a", "--models", "b/a"], {}, "and unique names and aliases; got a more than once"),
        (
            ["--models", '{"preset": "a", "aliases": "b"}', "--models", "b"],
            {},
            "unique names and aliases; got b more than once",
        ),
        (["--models", '{"preset": "a", "aliases": ["a"]}'], {}, "aliases and name must all differ"),
        (["--models", '{"preset": "a", "aliases": ["b", "b"]}'], {}, "aliases and name must all differ"),
        (
            ["--models", '{"preset": "a", "aliases": ["../b"]}'],
            {},
            "models.0.aliases.0 must have no part that is empty",
        ),
        (["--models", '{"preset": "a", "aliases": 5}'], {}, "models.0.aliases must be a list; got 5"),
        (["--models", "[]"], {}, "models must have at least one model"),
        (["--apis.tei_model=other"], {}, "apis.tei_model must be one of electra_demo"),
        (["--models", ".."], {}, "--models: models.0.name must have no part that is empty, . or .. between slashes"),
        (["--batching.max_queue_sequences", "255"], {}, "limits.max_sequences (256) must not exceed"),
        (
            ["--tokenization.max_queue_characters", "999999"],
            {},
            "tokenization.max_queue_characters must be at least limits.max_request_characters (1000000); got 999999",
        ),
        (["--lifecycle.drain_timeout_s", "0.9"], {}, "--lifecycle.drain_timeout_s must be at least 1"),
        (["--models", '{"preset": "a", "device": "tpu"}'], {}, "models.0.device"),
        (["--models", '{"preset": "a", "shade": "red"}'], {}, "--models: models.0.shade is not a setting"),
        (
            ["--models", '{"preset": "/"}'],
            {},
            "--models: models.0.name must be 1 to 128 printable characters without a space at either end; got ''",
        ),
        (["--admin.port", "1"], {}, "admin.port needs either admin.keys_file or admin.without_keys"),
        (
            ["--admin.port", "1", "--admin.keys_file", "k", "--admin.without_keys", "true"],
            {},
            "got both or neither",
        ),
        (["--metrics.port", "70000"], {}, "--metrics.port must be at most 65535"),
        (["--models", '{"preset": "a", "preset": "b"}'], {}, "presets and mappings, as JSON: 'preset' must occur"),
        (
            [],
            {"ELECTRA_MODELS": '[{"preset": "a", "preset": "b"}]'},
            "presets and mappings, as JSON: 'preset' must occur",
        ),
        (["--rest", '{"port": 1, "port": 2}'], {}, "--rest must be a JSON object; got"),
        ([], {"ELECTRA_REST": '{"port": 1, "port": 2}'}, "('port' must occur once in an object; got it twice)"),
        (
            [],
            {"electra_rest__port": "1", "ELECTRA_REST__PORT": "2"},
            "ELECTRA_REST__PORT must be set once; got",
        ),
        (["--config", "/does/not/exist"], {}, "cannot read settings file /does/not/exist"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str], environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError) as rejection:
        read(flags, environment, monkeypatch)
    assert message in str(rejection.value)
    assert "\n" not in str(rejection.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rest: {prot: 1}", "rest.prot in {config} is not a setting"),
        ("prot: 1", "prot in {config} is not a setting"),
        ("rest: [", "cannot read settings file"),
        ("rest: {}\ngrpc: {}\nrest: {}", "{config}: line 3: 'rest' must occur once; got it on line 1 too"),
        ("rest: {port: 1, port: 2}", "{config}: line 1: 'port' must occur once"),
        ("1: 2", "{config}: line 1: each key must be a string"),
        ("models:", "models in {config} must be presets separated by commas, or a list of presets and"),
        ("rest: [1]", "rest in {config} must be a mapping of its settings"),
        ("rest: {port: yes}", "rest in {config}: port must not be true or false; got true"),
        ("models: {preset: a, replicas: yes}", "models.0 in {config}: replicas must not be true or false; got true"),
        ("- 1\n- 2", "must be a mapping; got a list"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "electra.yaml"
    config.write_text(text)
    with pytest.raises(SettingsError) as rejection:
        read(["--config", str(config)])
    assert message.replace("{config}", str(config)) in str(rejection.value)
    assert "\n" not in str(rejection.value)


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


COMMON_LIMITS = {"max_sequences": 7, "max_text_characters": 8, "max_request_characters": 9, "max_timeout_s": 10.0}
COMMON_BATCHING = {
    "max_queue_sequences": 1000, "max_queue_tokens": 1001, "max_batch_tokens": 1002,
    "target_batch_s": 1.5, "max_window_sequences": 300, "hang_timeout_s": 2.5, "recorded_batches": 3,
}  # fmt: skip
OWN_VALUE = 250


@pytest.mark.parametrize("name", COMMON_LIMITS)
def test_a_models_own_limits_leave_the_others_as_they_are_for_all(name: str) -> None:
    settings = Settings.model_validate(
        {"limits": COMMON_LIMITS, "models": [{"preset": "a", "limits": {name: OWN_VALUE}}, "b"]}
    )
    own, common = (model.limits_over(settings.limits) for model in settings.models)
    assert own.model_dump() == {**COMMON_LIMITS, name: OWN_VALUE}
    assert common.model_dump() == COMMON_LIMITS


@pytest.mark.parametrize("name", COMMON_BATCHING)
def test_a_models_own_batching_leaves_the_rest_as_it_is_for_all(name: str) -> None:
    settings = Settings.model_validate(
        {"batching": COMMON_BATCHING, "models": [{"preset": "a", "batching": {name: OWN_VALUE}}, "b"]}
        | {"limits": {"max_sequences": 1}}
    )
    own, common = (model.batching_over(settings.batching) for model in settings.models)
    assert own.model_dump() == {**COMMON_BATCHING, name: OWN_VALUE}
    assert common.model_dump() == COMMON_BATCHING


def test_every_field_of_limits_and_batching_is_tried() -> None:
    assert COMMON_LIMITS.keys() == LimitSettings.model_fields.keys()
    assert COMMON_BATCHING.keys() == BatchingSettings.model_fields.keys()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"limits": {"max_sequences": 2049}}, "model a: limits.max_sequences (2049) must not exceed"),
        ({"batching": {"max_queue_sequences": 255}}, "model a: limits.max_sequences (256) must not exceed"),
    ],
)
def test_a_models_own_settings_must_fit_the_common_ones(own: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings.model_validate({"models": [{"preset": "a", **own}]})


def test_admin_and_metrics_have_no_ports_unless_they_are_given_one() -> None:
    settings = read()
    assert (settings.admin.port, settings.metrics.port) == (None, None)
    settings = read(["--admin.port", "0", "--admin.keys_file", "keys", "--metrics.port", "9090"])
    assert (settings.admin.port, settings.metrics.port) == (0, 9090)
    assert read(["--admin.port", "1", "--admin.without_keys", "true"]).admin.port == 1
