"""A fake Kaggle: enough of its API for kagglehub, which is pointed at it by `LOCALHOST` and a proxy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from urllib.parse import quote, unquote

from tests.integration.hubs.server import FakeHub, Request, Response

API = "/api/v1/models.ModelApiService/"
BLOBS = "/blobs/"


class FakeKaggle(FakeHub):
    """Models by `org/model/keras/variant`, each with versions, each with files.

    Attributes:
        models: Its contents.
        hashes: True if files come with an MD5, as from Google's storage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, dict[int, Mapping[str, bytes]]] = {}
        self.hashes = True

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make kagglehub use only this server."""
        proxy = f"http://127.0.0.1:{self.port}"
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": proxy, "NO_PROXY": "127.0.0.1"}

    def make_response(self, request: Request) -> Response:
        if request.path.startswith(BLOBS):
            return self._blob(unquote(request.path.removeprefix(BLOBS)), request.headers.get("Range", ""))
        asked = json.loads(request.body)
        repo = "/".join((asked["ownerSlug"], asked["modelSlug"], "keras", asked["instanceSlug"]))
        versions = self.models.get(repo, {})
        if not versions:
            return _json({"code": 404, "message": "not found"}, 404)
        if request.path == f"{API}GetModelInstance":
            return _json({"id": 1, "slug": asked["instanceSlug"], "versionNumber": max(versions)}, 200)
        assert request.path == f"{API}DownloadModelInstanceVersion", request.path
        if asked["path"] not in versions.get(asked["versionNumber"], {}):
            return _json({"code": 404, "message": "not found"}, 404)
        where = quote(f"{repo}/{asked['versionNumber']}/{asked['path']}", safe="")
        return Response(302, {"Location": f"http://localhost{BLOBS}{where}"})

    def _blob(self, where: str, wanted: str) -> Response:
        org, model, framework, variant, version, name = where.split("/", 5)
        content = self.models[f"{org}/{model}/{framework}/{variant}"][int(version)][name]
        headers = {"Accept-Ranges": "bytes"}
        if self.hashes:
            digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
            headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={digest}"
        if wanted:
            return Response(206, headers, content[int(wanted.removeprefix("bytes=").removesuffix("-")) :])
        return Response(200, headers, content)


def _json(content: object, code: int) -> Response:
    return Response(code, {"Content-Type": "application/json"}, json.dumps(content).encode())
