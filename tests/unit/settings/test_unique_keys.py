"""A key that occurs twice is an error at any depth; so is whatever else cannot be parsed, in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.settings.unique_keys import InvalidText, parse_json, parse_yaml

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    lambda children: st.lists(children) | st.dictionaries(st.text("abc:#'\"- ", min_size=1), children),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "security: {api_keys_file: k}\nrest: {port: 1}\nsecurity: {}",
            "line 3: 'security' must occur once; .* line 1",
        ),
        ("rest:\n  port: 1\n  host: a\n  port: 2", "line 4: 'port' must occur once; got it on line 2 too"),
        ("models:\n- {preset: a, limits: {max_sequences: 1, 'max_sequences': 2}}", "line 2: 'max_sequences'"),
        ("a: {<<: {x: 1}, <<: {y: 1}}", "line 1: '<<'"),
        ("rest: {1: a}", "line 1: each key must be a string"),
        ("rest: {}\non: 1", "line 2: each key must be a string"),
        ("? [rest]\n: 1", "line 1: each key must be a string"),
        ("a: 1\nb: [", "line 2: "),
        ("a: *b", "line 1: found undefined alias"),
        ("a: 1\n---\na: 1", "line 2: "),
        ("a: !!python/name:os.system x", "line 1: could not determine a constructor"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_yaml_that_cannot_be_used_names_the_line(text: str, message: str) -> None:
    with pytest.raises(InvalidText, match=message) as rejection:
        parse_yaml(text.encode())
    assert "\n" not in str(rejection.value)


@pytest.mark.parametrize("content", [b"\xff\xfea", b"a: \xf6", b"a: \x00"])
def test_yaml_that_is_no_text_is_one_line(content: bytes) -> None:
    with pytest.raises(InvalidText) as rejection:
        parse_yaml(content)
    assert "\n" not in str(rejection.value)


def test_a_key_may_override_one_that_is_merged() -> None:
    assert parse_yaml(b"a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}") == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 2, "y": 1},
        "c": {"x": 2, "y": 3},
    }


def test_one_key_may_occur_in_several_mappings() -> None:
    assert parse_yaml(b"rest: {port: 1}\ngrpc: {port: 1}") == {"rest": {"port": 1}, "grpc": {"port": 1}}


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n", b"\xef\xbb\xbf"])
def test_yaml_without_content_is_none(content: bytes) -> None:
    assert parse_yaml(content) is None


@given(TREES)
def test_yaml_is_parsed_as_pyyaml_does(tree: Any) -> None:
    assert parse_yaml(yaml.safe_dump(tree, allow_unicode=True).encode()) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"preset": "a", "preset": "b"}', "'preset' must occur once in an object"),
        ('[{"limits": {"a": 1, "\\u0061": 2}}]', "'a' must occur once in an object"),
        ("{", "line 1, column 2: "),
        ('{"a": NaN}', "NaN is not JSON"),
        (b'{"a": "\xff"}', "must be UTF-8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_cannot_be_used_says_why(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidText, match=message):
        parse_json(text)


@given(TREES)
def test_json_is_parsed_as_the_standard_library_does(tree: Any) -> None:
    assert parse_json(json.dumps(tree)) == tree
