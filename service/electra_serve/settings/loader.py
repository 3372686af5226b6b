"""Reads the settings from flags, environment and a YAML file; an error is one line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from electra_serve.errors import SettingsError
from electra_serve.settings.messages import Origins, describe
from electra_serve.settings.schema import ENV_PREFIX, HubSettings, Settings, model_entries
from electra_serve.settings.unique_keys import InvalidText, parse_json, parse_yaml

CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
_MODELS: Final = "models"
# Variables that Kubernetes sets in every pod for a Service whose name begins with `electra`; so do Docker's links
_SERVICE_LINK: Final = re.compile(
    r"(?!.*__)[A-Z0-9_]+?_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)"
)


def add_flags(parser: argparse.ArgumentParser) -> CliSettingsSource[Settings]:
    """Adds one flag per setting, and `--config`; returns the source that `read_settings` needs."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"a YAML file with any of the settings; or ${CONFIG_VARIABLE}"
    )
    return CliSettingsSource(Settings, root_parser=parser, cli_hide_none_type=True, cli_avoid_json=True)


def read_settings(
    flags: argparse.Namespace, source: CliSettingsSource[Settings], environment: Mapping[str, str]
) -> Settings:
    """Reads the settings: flags before environment before file before defaults.

    Args:
        flags: Parsed flags; other names than settings are ignored.
        source: Result of `add_flags`.
        environment: The process's variables, which pydantic-settings also reads.

    Raises:
        SettingsError: A key is unknown or occurs twice, a value is invalid, or the file cannot be read.
    """
    variables = _setting_variables(environment)
    given = {key: value for key, value in vars(flags).items() if value is not None and key in _dotted_names()}
    config: Path | None = flags.config
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    content = {} if config is None else _read_file(config)
    origins = Origins(frozenset(given), variables, config, content.keys())
    _check_sections(given, variables, environment)
    models = _models_of_flags(given)
    try:
        return _with_file(content)(**models, _cli_settings_source=source(parsed_args=given))  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(describe(error, origins)) from error
    except PydanticSettingsError as error:
        raise SettingsError(f"cannot read settings: {' '.join(str(error).split())}") from error


def hub_settings_from_environment() -> HubSettings:
    """Reads `hub` from the environment, for code that loads models without a service; raises `SettingsError`."""

    class HubEnvironment(BaseSettings):
        model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="ignore")

        hub: HubSettings = HubSettings()

    variables = {name: variable for name, variable in _variables(os.environ).items() if name.startswith("hub")}
    _check_sections({}, variables, os.environ)
    try:
        return HubEnvironment().hub
    except ValidationError as error:
        raise SettingsError(describe(error, Origins(variables=variables))) from error


def variable_names(section: type[BaseModel] = Settings, prefix: str = ENV_PREFIX) -> Iterator[str]:
    """Yields the environment variable of each setting.

    Example:
        >>> "ELECTRA_REST__PORT" in set(variable_names())
        True
    """
    for name, field in section.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variable_names(field.annotation, variable + "__")


def _dotted_name(variable: str) -> str:
    return variable.upper().removeprefix(ENV_PREFIX).lower().replace("__", ".")


def _dotted_names() -> set[str]:
    return set(map(_dotted_name, variable_names()))


def _section_names() -> set[str]:
    return {name for name, field in Settings.model_fields.items() if _is_section(field.annotation)}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _setting_variables(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the variables of the service; rejects unknown ones."""
    known = {CONFIG_VARIABLE, *variable_names()}
    unknown = sorted(
        name
        for name in environment
        if name.startswith(ENV_PREFIX) and name.upper() not in known and not _SERVICE_LINK.fullmatch(name)
    )
    if unknown:
        raise SettingsError(
            f"unknown setting in the environment: {unknown[0]}; `electra-serve serve --help` lists the settings"
        )
    return _variables(environment)


def _variables(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Returns variables by dotted name; pydantic-settings ignores capitalization."""
    known = set(variable_names())
    variables: dict[str, str] = {}
    for name in sorted(name for name in environment if name.upper() in known):
        other = variables.setdefault(_dotted_name(name), name)
        if other != name:
            raise SettingsError(f"{name.upper()} must be set once; got {other} and {name}")
    return variables


def _check_sections(given: Mapping[str, Any], variables: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Rejects values of whole sections that are not JSON objects with unique keys."""
    for dotted in sorted(_section_names()):
        if dotted in variables:
            _check_object(variables[dotted], environment[variables[dotted]])
        if dotted in given:
            _check_object(f"--{dotted}", given[dotted])


def _check_object(name: str, value: str) -> None:
    try:
        parsed = parse_json(value)
    except InvalidText as error:
        raise SettingsError(f"{name} must be a JSON object; got {value!r:.80} ({error})") from error
    if not isinstance(parsed, dict):
        raise SettingsError(f"{name} must be a JSON object; got {value!r:.80}")


def _models_of_flags(given: dict[str, Any]) -> dict[str, Any]:
    """Removes the models from `given`, as pydantic-settings would drop repeated keys in them."""
    if _MODELS not in given:
        return {}
    entries: list[object] = []
    for text in given.pop(_MODELS):
        try:
            entries += model_entries(text)
        except PydanticCustomError as error:
            received = "" if error.type == "json" else f"; got {text!r:.80}"
            raise SettingsError(f"--{_MODELS} {error.message()}{received}") from error
    return {_MODELS: entries}


def _with_file(content: Mapping[str, object]) -> type[Settings]:
    """Returns a settings class that also reads `content`, after the environment."""
    if not content:
        return Settings

    class SettingsFromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[Settings],  # type: ignore[override]  # the base says BaseSettings
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # named by the base class
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=dict(content))

    return SettingsFromFile


def _read_file(config: Path) -> Mapping[str, object]:
    """Reads the settings file; an empty file or section is an empty mapping."""
    try:
        content = parse_yaml(config.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read settings file {config}: {error.strerror or error}") from error
    except InvalidText as error:
        raise SettingsError(f"cannot read settings file {config}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"settings file {config} must be a mapping; got a {type(content).__name__}")
    sections = _section_names()
    return {key: value for key, value in content.items() if value is not None or key not in sections}
