"""Sources of the hubs as set, without an import of their clients before one is needed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from electra_serve.errors import PresetError, SettingsError
from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.hubs.build import build_hubs
from electra_serve.presets.hubs.cache import default_cache_dir
from electra_serve.presets.hubs.handle import Handle
from electra_serve.settings.loader import hub_settings_from_environment
from electra_serve.settings.schema import HubSettings

PROGRAM = """
import sys
import electra_serve.server.bootstrap, electra_serve.cli.main
from electra_serve.presets.sources import resolve_preset
resolve_preset("electra_demo")
print(*sorted({"huggingface_hub", "kagglehub", "requests", "httpx2"} & set(sys.modules)))
"""


def test_a_start_from_a_local_preset_imports_no_client() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("settings", "variables"),
    [({"offline": True}, {}), ({}, {"HF_HUB_OFFLINE": "1"}), ({}, {"HF_HUB_OFFLINE": "true"})],
)
def test_offline_is_a_setting_and_huggingfaces_variable(
    tmp_path: Path, settings: dict[str, bool], variables: dict[str, str]
) -> None:
    hubs = build_hubs(HubSettings(cache_dir=str(tmp_path), **settings), environment=variables, terminal=io.StringIO())  # type: ignore[arg-type]
    with pytest.raises(PresetError, match="offline"):
        hubs.handles.find("hf://org/repo", load_weights=True)


@pytest.mark.parametrize(("prefer", "first"), [("kaggle", "kaggle://"), ("hf", "hf://")])
def test_the_preferred_hub_is_asked_first(tmp_path: Path, prefer: str, first: str) -> None:
    settings = HubSettings(cache_dir=str(tmp_path), offline=True, prefer=prefer)  # type: ignore[arg-type]
    with pytest.raises(PresetError, match=f"^cannot fetch .*?: {first}keras"):
        build_hubs(settings).built_in.find(next(iter(CATALOG)), load_weights=True)


@pytest.mark.parametrize(
    ("configured", "variables", "folder"),
    [
        ("", {"HOME": ""}, None),
        ("", {"HOME": "relative"}, None),
        ("~/presets", {}, None),
        ("~no-such-user/presets", {"HOME": "/home/me"}, None),
        ("~/presets", {"HOME": "/home/me"}, "/home/me/presets"),
        ("", {"XDG_CACHE_HOME": "/cache"}, "/cache/electra-serve/presets"),
        ("/presets", {}, "/presets"),
    ],
)
def test_a_user_without_a_home_has_a_cache_only_where_it_is_said(
    configured: str, variables: dict[str, str], folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    cache = build_hubs(HubSettings(cache_dir=configured), environment=variables, terminal=io.StringIO()).cache
    if folder is not None:
        assert cache.root == Path(folder)
        return
    assert list(cache.all()) == []
    handle = Handle("hf", "org/repo", None)
    assert cache.find(handle) is None
    with pytest.raises(PresetError, match=r"^hub\.cache_dir must name a folder"), cache.lock(handle, 1.0):
        pass


def test_a_published_preset_that_cannot_be_fetched_says_why_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    hubs = build_hubs(HubSettings(), environment={}, terminal=io.StringIO())
    with pytest.raises(PresetError) as error:
        hubs.built_in.find(next(iter(CATALOG)), load_weights=True)
    assert str(error.value).count("hub.cache_dir must name a folder") == 1


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/electra-serve/presets"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}, "/cache/electra-serve/presets"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "relative"}, "/home/me/.cache/electra-serve/presets"),
    ],
)
def test_the_cache_is_where_xdg_says(variables: dict[str, str], folder: str) -> None:
    assert default_cache_dir(variables) == Path(folder)


def test_a_wrong_variable_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRA_HUB__ATTEMPTS", "0")
    with pytest.raises(SettingsError, match="ELECTRA_HUB__ATTEMPTS must be at least 1; got '0'"):
        hub_settings_from_environment()


def test_other_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRA_REST__PORT", "nonsense")
    monkeypatch.setenv("ELECTRA_HUB__PREFER", "hf")
    assert hub_settings_from_environment().prefer == "hf"
