"""A pod whose preset comes from a hub: the init container fetches it, and it is served from a read-only volume."""

from __future__ import annotations

from pathlib import Path

import yaml

from electra_serve.settings.schema import Settings
from tests.integration.container import Volumes, run, running
from tests.integration.deploy.manifests import config, pod, serving
from tests.integration.hubs.conftest import Case, environment_of


def test_what_the_init_container_pulled_is_served_without_the_hub(case: Case, tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    (init,) = pod("overlays/gpu")["initContainers"]
    run(volumes, init, case.pinned, **environment_of(tmp_path / "tmp", case.hub))
    asked = len(case.hub.requests)
    write_config(volumes, case.pinned)
    try:
        with running(volumes, serving("overlays/gpu")) as container:
            container.wait_started()
        assert len(case.hub.requests) == asked
    finally:
        volumes.unseal()


def write_config(volumes: Volumes, preset: str) -> None:
    """The overlay's settings, except preset, engine and device, which are not available here."""
    settings = yaml.safe_load(volumes.place(config("overlays/gpu")))
    settings["models"] = [{"preset": preset, "name": "electra"}]
    Settings.model_validate(settings)
    keys = volumes.root / "keys"
    for folder in (keys, volumes.root / "config"):
        folder.mkdir()
    (keys / "api-keys").write_text("shop:3f9c0d2b7f6e4a1c8d5e\n")
    (volumes.root / "config/config.yaml").write_text(yaml.safe_dump(settings))
