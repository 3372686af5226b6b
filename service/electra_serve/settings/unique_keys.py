"""Parses YAML and JSON of operators; rejects repeated keys, and keys that are not strings.

PyYAML and json silently keep the last of two equal keys: a section with the API keys file could be lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import yaml


class InvalidText(ValueError):
    """Text that cannot be parsed; the message is one line without values."""


_KEY_TAGS: Final = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})


class _UniqueKeyLoader(yaml.SafeLoader):
    """Checks each mapping before merge keys (`<<`) are resolved."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
                raise InvalidText(f"line {line}: each key must be a string; quote it if it looks like something else")
            if key.value in lines:
                raise InvalidText(
                    f"line {line}: {key.value!r:.80} must occur once; got it on line {lines[key.value]} too"
                )
            lines[key.value] = line
        return node


def parse_yaml(content: bytes) -> object:
    """Parses one YAML document; an empty one is None.

    Raises:
        InvalidText: Invalid YAML, or a repeated key; names the line.

    Example:
        >>> parse_yaml(b"rest: {port: 1}")
        {'rest': {'port': 1}}
    """
    try:
        parsed: object = yaml.load(content, _UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InvalidText(f"{line}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InvalidText):
            raise
        raise InvalidText(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise InvalidText("nested too deeply") from error
    return parsed


def parse_json(text: str | bytes) -> object:
    """Parses JSON.

    Raises:
        InvalidText: Invalid JSON, or a repeated key; names the key.

    Example:
        >>> parse_json('{"preset": "electra_demo"}')
        {'preset': 'electra_demo'}
    """
    try:
        parsed: object = json.loads(text, object_pairs_hook=_unique, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise InvalidText(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InvalidText("must be UTF-8") from error
    except RecursionError as error:
        raise InvalidText("nested too deeply") from error
    return parsed


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise InvalidText(f"{key!r:.80} must occur once in an object; got it twice")
        members[key] = value
    return members


def _reject_constant(name: str) -> None:
    raise InvalidText(f"{name} is not JSON")
