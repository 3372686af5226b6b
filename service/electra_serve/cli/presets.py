"""`electra-serve presets list | show | pull | verify | convert`. Imports no Keras."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from electra_serve.cli.convert import add_convert
from electra_serve.errors import PresetError
from electra_serve.presets.catalog import CATALOG, DEMO_ID, CatalogPreset, find
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.hubs.build import LOGGER, Hubs, build_hubs
from electra_serve.presets.hubs.handle import HUBS, Handle, parse_handle
from electra_serve.presets.hubs.manifest import Manifest, read_manifest, verify
from electra_serve.presets.hubs.source import built_in_handles
from electra_serve.presets.sources import default_sources, resolve_preset
from electra_serve.presets.tokenizers.loader import NoTokenizer, load_tokenizer
from electra_serve.settings.loader import add_flags, read_settings
from electra_serve.settings.schema import HubSettings

Action = Callable[[argparse.Namespace, HubSettings], int]
BYTES_PER_PARAMETER = 4  # published weights are float32


def add_presets(parser: argparse.ArgumentParser) -> None:
    """Adds the actions to `parser`; each accepts the same settings as `serve`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add(actions.add_parser("list", help="list the built-in and the fetched presets"), list_presets)
    show = actions.add_parser("show", help="describe one preset without fetching it")
    show.add_argument("preset", help="a built-in id, a handle on a hub, or a folder")
    _add(show, show_preset)
    pull = actions.add_parser("pull", help="fetch presets into the cache, and damaged ones again")
    pull.add_argument("preset", nargs="+", help="a built-in id, or a handle on a hub")
    _add(pull, pull_presets)
    check = actions.add_parser("verify", help="compare fetched files with the hashes in their manifests")
    check.add_argument("preset", nargs="*", help="a built-in id, or a handle on a hub; default: all fetched presets")
    _add(check, verify_presets)
    add_convert(actions.add_parser("convert", help="write a preset in the format of KerasHub or of transformers"))


def _add(parser: argparse.ArgumentParser, action: Action) -> None:
    source = add_flags(parser)

    def run(flags: argparse.Namespace) -> int:
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="electra-serve: %(message)s")
        logging.getLogger(LOGGER).setLevel(logging.INFO)
        return action(flags, read_settings(flags, source, os.environ).hub)

    parser.set_defaults(run=run)


def list_presets(_: argparse.Namespace, settings: HubSettings) -> int:
    """Prints the catalog as a table, then other fetched presets."""
    fetched = dict(build_hubs(settings).cache.all())
    row = "{:<40} {:>6} {:>5} {:>6} {:>12} {:>6}  {:<22} {}\n"
    _write(row.format("preset", "layers", "heads", "hidden", "parameters", "MB", "cached", "weights"))
    _write(
        row.format(
            DEMO_ID, *_shape(resolve_preset(DEMO_ID, sources=default_sources(settings))), "embedded", "pretrained"
        )
    )
    for preset in CATALOG.values():
        at = [f"{handle.hub} {handle.revision:.12}" for handle in fetched if _is(handle, preset)]
        _write(row.format(preset.id, *_shape(preset), ", ".join(at) or "-", "pretrained"))
    for handle, folder in fetched.items():
        if not any(_is(handle, preset) for preset in CATALOG.values()):
            _write(f"{handle}  {_fetch_of(folder)}\n")
    return 0


def show_preset(flags: argparse.Namespace, settings: HubSettings) -> int:
    """Prints the description of one preset."""
    hubs = build_hubs(settings)
    published = find(flags.preset)
    located = next(_fetched(hubs, flags.preset), None)
    if located is not None:
        handle, folder = located
        manifest = verify(folder)
        preset = hubs.handles.cached(handle, load_weights=True)
        facts = {**_facts(preset), **_provenance(manifest, folder)} if preset is not None else {}
    elif published is not None:
        facts = {"preset": published.id, **_sizes(published), "fetched": "no"}
    elif parse_handle(flags.preset) is not None:
        raise PresetError(f"cannot show {flags.preset}: not fetched; run `electra-serve presets pull {flags.preset}`")
    else:
        facts = _facts(resolve_preset(flags.preset, sources=default_sources(settings)))
    if published is not None:
        facts |= {"kaggle": published.kaggle_handle, "hf": published.hf_handle, "about": published.description}
    _write("".join(f"{name:<12} {value}\n" for name, value in facts.items()))
    return 0


def pull_presets(flags: argparse.Namespace, settings: HubSettings) -> int:
    """Fetches presets that are missing, damaged, or behind their branch."""
    hubs = build_hubs(settings)
    for name in flags.preset:
        if find(name) is None and parse_handle(name) is None:
            raise PresetError(f"a preset to fetch must be a built-in id or a handle on a hub; got {name!r:.120}")
        for _, folder in _fetched(hubs, name):
            if _damage(folder) is not None:
                hubs.cache.remove(folder)
        preset = resolve_preset(name, sources=(hubs.built_in, hubs.handles))
        _write(f"{preset.path}\nsha256 {preset.sha256}\n")
    return 0


def verify_presets(flags: argparse.Namespace, settings: HubSettings) -> int:
    """Prints the state of each fetched preset; returns 0 if all are intact, else 1."""
    hubs = build_hubs(settings)
    named = [located for name in flags.preset for located in _require_fetched(hubs, name)]
    folders = {folder: handle for handle, folder in named} if flags.preset else {f: h for h, f in hubs.cache.all()}
    damages = {folder: _damage(folder) for folder in folders}
    for folder, damage in damages.items():
        _write(f"{folders[folder]}: {'intact' if damage is None else damage}\n")
    return 0 if all(damage is None for damage in damages.values()) else 1


def _fetched(hubs: Hubs, name: str) -> Iterator[tuple[Handle, Path]]:
    """Yields handle and folder of each fetched copy of a built-in id or handle."""
    published = find(name)
    handle = parse_handle(name)
    handles = built_in_handles(published, HUBS) if published is not None else [handle] if handle else []
    for candidate in handles:
        folder = hubs.cache.find(candidate)
        if folder is not None:
            yield candidate, folder


def _require_fetched(hubs: Hubs, name: str) -> Sequence[tuple[Handle, Path]]:
    located = list(_fetched(hubs, name))
    if not located:
        raise PresetError(f"cannot verify {name!r:.120}: not fetched")
    return located


def _fetch_of(folder: Path) -> str:
    try:
        manifest = read_manifest(folder)
    except PresetError:
        return "damaged"
    return f"{manifest.size / 1e6:.1f} MB, fetched {manifest.fetched_at}"


def _damage(folder: Path) -> str | None:
    try:
        verify(folder)
    except PresetError as error:
        return str(error)
    return None


def _is(handle: Handle, preset: CatalogPreset) -> bool:
    return any(handle.hub == known.hub and handle.repo == known.repo for known in built_in_handles(preset, HUBS))


def _facts(preset: PresetFolder) -> dict[str, object]:
    return {
        "preset": preset.id,
        **_sizes(preset),
        "weights": preset.weights,
        "head": preset.head_problem or preset.head_name,
        "text": _text(preset),
        **_compilation(preset),
        "sha256": preset.sha256,
        "folder": preset.path,
    }


def _text(preset: PresetFolder) -> str:
    tokenizer = load_tokenizer(preset)
    return f"no: {tokenizer.reason}" if isinstance(tokenizer, NoTokenizer) else "yes"


def _compilation(preset: PresetFolder) -> Mapping[str, object]:
    artifact = preset.artifact
    if artifact is None:
        return {}
    made_by = ", ".join(f"{name} {version}" for name, version in artifact.made_by.items())
    return {
        "compiled": f"for {artifact.engine} in {artifact.dtype}, by {made_by}",
        "of": f"{artifact.preset}, sha256 {artifact.preset_sha256}",
    }


def _provenance(manifest: Manifest, folder: Path) -> Mapping[str, object]:
    return {
        "source": manifest.source,
        "fetched": f"{manifest.fetched_at}, {manifest.size / 1e6:.1f} MB, by {manifest.client}",
        "files": ", ".join(f"{name} {record.sha256:.12}…" for name, record in manifest.files.items()),
        "folder": folder,
    }


def _sizes(preset: PresetFolder | CatalogPreset) -> Mapping[str, object]:
    layers, heads, hidden, parameters, megabytes = _shape(preset)
    return {"layers": layers, "heads": heads, "hidden": hidden, "parameters": parameters, "float32 MB": megabytes}


def _shape(preset: PresetFolder | CatalogPreset) -> tuple[int, int, int, str, str]:
    config = preset.config
    megabytes = f"{config.parameters * BYTES_PER_PARAMETER / 1e6:,.0f}"
    return config.num_layers, config.num_heads, config.hidden_dim, f"{config.parameters:,}", megabytes


def _write(text: str) -> None:
    sys.stdout.write(text)
