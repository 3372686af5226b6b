"""A fake Hugging Face hub: enough of its API for huggingface_hub, which `HF_ENDPOINT` points at it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from urllib.parse import unquote

from tests.integration.hubs.server import FakeHub, Request, Response

API = "/api/models/"
RESOLVE = "/resolve/"
LARGE = 20_000
"""Files of at least so many bytes are in LFS."""


class FakeHuggingFace(FakeHub):
    """Repositories by `org/repo`, each with revisions by commit, each with files.

    Attributes:
        repos: Its contents.
        branches: Commits by `org/repo` and branch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repos: dict[str, dict[str, Mapping[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make huggingface_hub use only this server, with short timeouts."""
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "5",
            "HF_HUB_DOWNLOAD_TIMEOUT": "5",
            "NO_PROXY": "127.0.0.1",
        }

    def commit(self, repo: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Adds a commit and moves `branch` there."""
        sha = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
        self.repos.setdefault(repo, {})[sha] = files
        self.branches[repo, branch] = sha
        return sha

    def make_response(self, request: Request) -> Response:
        path = unquote(request.path)
        if path.startswith(API):
            return self._listing(path.removeprefix(API))
        repo, _, rest = path.removeprefix("/").partition(RESOLVE)
        revision, _, name = rest.partition("/")
        commit = self._commit(repo, revision)
        if commit is None or name not in self.repos[repo][commit]:
            return Response(404, {"X-Error-Code": "EntryNotFound"})
        content = self.repos[repo][commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(content)}"', "Content-Length": str(len(content))}
        return Response(200, headers, content)

    def _listing(self, path: str) -> Response:
        repo, _, revision = path.partition("/revision/")
        if repo not in self.repos:
            return Response(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
        commit = self._commit(repo, revision or "main")
        if commit is None:
            return Response(404, {"X-Error-Code": "RevisionNotFound"})
        siblings = [_sibling(name, content) for name, content in self.repos[repo][commit].items()]
        listing = {"id": repo, "sha": commit, "siblings": siblings}
        return Response(200, {"Content-Type": "application/json"}, json.dumps(listing).encode())

    def _commit(self, repo: str, revision: str) -> str | None:
        found = self.branches.get((repo, revision), revision)
        return found if found in self.repos.get(repo, {}) else None


def _sibling(name: str, content: bytes) -> dict[str, object]:
    sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": _blob_id(content)}
    if len(content) >= LARGE:
        sibling["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return sibling


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
