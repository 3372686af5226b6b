"""Manifests against the schemas of Kubernetes and of the operators' own kinds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
from jsonschema import Draft202012Validator

from tests.integration.deploy.manifests import Manifest

VERSIONS: Final = ("1.31", "1.37")
"""The oldest Kubernetes that the manifests are for, and the newest that was known."""
CRDS: Final = Path(__file__).parent / "crds"
_OF_KUBERNETES: Final = ("apps/", "autoscaling/", "batch/", "networking.k8s.io/", "policy/", "v1")


def complaints(manifest: Manifest) -> list[str]:
    """Returns the faults of a manifest; fields that its schema does not name are faults."""
    if not manifest["apiVersion"].startswith(_OF_KUBERNETES):
        errors = Draft202012Validator(_crd(manifest["kind"].lower())).iter_errors(manifest)
        return [f"{error.json_path}: {error.message}" for error in errors]
    return [complaint for version in VERSIONS for complaint in _of_kubernetes(manifest, version)]


def _of_kubernetes(manifest: Manifest, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{version}: {'.'.join(map(str, error.path))}: {error.message}"]
    return []


@cache
def _crd(kind: str) -> Any:
    return closed(json.loads((CRDS / f"{kind}.json").read_text()))


def closed(schema: Any) -> Any:
    """Returns the schema, changed to reject fields that it does not name.

    An API server silently drops them, so a misspelled field would have no effect.

    Example:
        >>> closed({"properties": {"a": {"type": "string"}}})
        {'properties': {'a': {'type': 'string'}}, 'additionalProperties': False}
    """
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(part) for name, part in schema.items()}
    open_ended = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & schema.keys()
    is_object = isinstance(schema.get("properties"), dict) and not open_ended
    return inner | ({"additionalProperties": False} if is_object else {})
