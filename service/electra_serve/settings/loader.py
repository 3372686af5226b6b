"""Reads the settings tree from flags, environment and a YAML file, and says in one line what is wrong with it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, InitSettingsSource, PydanticBaseSettingsSource
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from electra_serve.errors import SettingsError
from electra_serve.settings.schema import ENV_PREFIX, Settings
from electra_serve.settings.unique_keys import InvalidText, parse_json, parse_yaml

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
    _refuse_unknown_variables(environment)
    _reject_duplicates(flags, environment)
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


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {CONFIG_VARIABLE, *variable_names()}
    unknown = sorted(
        name
        for name in environment
        if name.startswith(ENV_PREFIX) and name.upper() not in known and not _SERVICE_LINK.fullmatch(name)
    )
    if unknown:
        raise SettingsError(f"unknown setting in the environment: {unknown[0]}; README.md lists those that are")


def _reject_duplicates(flags: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Rejects what pydantic-settings would drop: a variable in two spellings, a key that occurs twice in JSON."""
    spellings: dict[str, str] = {}
    for name in sorted(filter(_is_setting, environment)):
        other = spellings.setdefault(name.upper(), name)
        if other != name:
            raise SettingsError(f"{name.upper()} must be set once; it is set as {other} and as {name}")
        _check_json(name, environment[name])
    for name in _flag_names() & vars(flags).keys():
        values = getattr(flags, name)
        for value in values if isinstance(values, list) else [values]:
            _check_json(f"--{name}", value)


def _is_setting(variable: str) -> bool:
    return variable.upper() in set(variable_names())


def _check_json(name: str, value: object) -> None:
    """Rejects duplicate keys in a value that is meant as a JSON object or list."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return
    try:
        parse_json(value)
    except InvalidText as error:
        raise SettingsError(f"{name} must be valid JSON; {error}") from error


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
        content = parse_yaml(config.read_bytes())
    except OSError as error:
        raise SettingsError(f"settings file {config} cannot be read: {error.strerror or error}") from error
    except InvalidText as error:
        raise SettingsError(f"settings file {config} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"settings file {config} must hold a mapping; it holds a {type(content).__name__}")
    return content


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    received = first.get("input")
    shown = f"; received {received!r:.80}" if isinstance(received, (str, int, float)) else ""
    return f"{where}: {first['msg']}{shown}"
