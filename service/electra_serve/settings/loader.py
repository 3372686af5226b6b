"""Reads the settings tree from flags, environment and a YAML file, and says in one line what is wrong with it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, InitSettingsSource, PydanticBaseSettingsSource
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from electra_serve.errors import SettingsError
from electra_serve.settings.schema import ENV_PREFIX, Settings

CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
_SERVICE_LINK: Final = re.compile(
    r"(?!.*__)[A-Z0-9_]+?_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)"
)
"""What Kubernetes sets in every pod for a Service whose name begins with `electra`, as Docker's links do."""


def add_flags(parser: argparse.ArgumentParser) -> CliSettingsSource[Settings]:
    """Gives `parser` one flag per setting, and `--config`.

    Returns:
        What `read_settings` needs to understand the parsed flags.
    """
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"a YAML file with any of the settings; or ${CONFIG_VARIABLE}"
    )
    return CliSettingsSource(Settings, root_parser=parser, cli_hide_none_type=True, cli_avoid_json=True)


def read_settings(
    flags: argparse.Namespace, source: CliSettingsSource[Settings], environment: Mapping[str, str]
) -> Settings:
    """Puts the tree together: flags over environment over file over defaults.

    Args:
        flags: What the parser found; names that are no settings are left alone.
        source: From `add_flags`.
        environment: The process' variables; pydantic-settings reads the same ones.

    Raises:
        SettingsError: A key is unknown, a value is not valid, or the file cannot be read.
    """
    _reject_unknown_variables(environment)
    config: Path | None = flags.config
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    given = {key: value for key, value in vars(flags).items() if value is not None and key in _flag_names()}
    try:
        return _with_file(config)(_cli_settings_source=source(parsed_args=given))  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(_first_line(error)) from error
    except PydanticSettingsError as error:
        raise SettingsError(f"settings cannot be read: {' '.join(str(error).split())}") from error


def variable_names(section: type[BaseModel] = Settings, prefix: str = ENV_PREFIX) -> Iterator[str]:
    """Every environment variable that sets something.

    Example:
        >>> "ELECTRA_REST__PORT" in set(variable_names())
        True
    """
    for name, field in section.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variable_names(field.annotation, variable + "__")


def _flag_names() -> set[str]:
    return {name.removeprefix(ENV_PREFIX).lower().replace("__", ".") for name in variable_names()}


def _reject_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {CONFIG_VARIABLE, *variable_names()}
    unknown = sorted(
        name
        for name in environment
        if name.startswith(ENV_PREFIX) and name.upper() not in known and not _SERVICE_LINK.fullmatch(name)
    )
    if unknown:
        raise SettingsError(f"unknown setting in the environment: {unknown[0]}; README.md lists those that are")


def _with_file(config: Path | None) -> type[Settings]:
    """The settings class, reading `config` below the environment."""
    if config is None:
        return Settings
    content = _read_file(config)

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
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=content)

    return SettingsFromFile


def _read_file(config: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(config.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"settings file {config} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"settings file {config} must hold a mapping; it holds a {type(content).__name__}")
    return content


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    received = first.get("input")
    shown = f"; received {received!r:.80}" if isinstance(received, (str, int, float)) else ""
    return f"{where}: {first['msg']}{shown}"
