"""API keys of clients, read from a file.

Each line of a key file is `key` or `name:key`. Blank lines and lines that begin with `#` are skipped. Several keys may
share a name, so that keys can be rotated. A key without a name is named by the first digits of its digest.

Only SHA-256 digests of keys are kept, and no message or log line holds a key. Each request is compared with every key
in constant time.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

import structlog

from electra_serve.api.security.reloading import ReloadingFile
from electra_serve.errors import SettingsError, Unauthenticated

MIN_KEY_CHARACTERS: Final = 16  # shorter keys can be guessed
MAX_FILE_BYTES: Final = 2**20

_KEY: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750's b64token: what `Authorization: Bearer` can carry
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One accepted key: its SHA-256 digest, and the name of its client."""

    digest: bytes
    client: str


class KeyRing:
    """Current keys of a file; changes are loaded without a restart.

    Raises `SettingsError` for a file that is unreadable, writable for everyone, without a key or with an invalid one.
    """

    def __init__(
        self, path: Path, log: structlog.typing.FilteringBoundLogger, *, now: Callable[[], float] = time.time
    ) -> None:
        self._keys = ReloadingFile("API keys", [path], partial(read_keys, path), log, now=now)

    def client_of(self, candidate: str | None) -> str:
        """Returns the name of the client with this key; raises `Unauthenticated` if there is none, or no key."""
        digest = sha256((candidate or "").encode(errors="replace")).digest()
        client = None
        for key in self._keys.current:
            if hmac.compare_digest(key.digest, digest):
                client = key.client
        if client is None:
            raise Unauthenticated(
                "a valid API key is required, as authorization: Bearer or x-api-key; "
                f"got {'none' if candidate is None else 'an unknown one'}"
            )
        return client


def read_keys(path: Path) -> Sequence[Key]:
    """Reads a key file; see `KeyRing` for errors."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"API key file {path} cannot be read: {error.strerror or error}") from error
    if mode & stat.S_IWOTH:
        raise SettingsError(f"API key file {path} must not be writable for everyone; its mode is {stat.filemode(mode)}")
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"API key file {path} must have at most {MAX_FILE_BYTES} bytes")
    try:
        return parse_keys(content.decode("utf-8-sig"))
    except ValueError as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise SettingsError(f"API key file {path}: {reason}") from None  # the cause holds text of the file


def parse_keys(text: str) -> Sequence[Key]:
    r"""Parses a key file; raises `ValueError`, which names the line only, for an invalid or repeated key, or none.

    >>> [key.client for key in parse_keys("# both are the shop's\nshop:0123456789abcdef\nshop:fedcba9876543210")]
    ['shop', 'shop']
    >>> parse_keys("0123456789abcdef")[0].client
    'key-9f9f5111'
    """
    keys: dict[bytes, Key] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _parse_line(line.strip(), number)
        if key.digest in keys:
            raise ValueError(f"line {number}: each key may occur once; this one occurs above")
        keys[key.digest] = key
    if not keys:
        raise ValueError("at least one key is required; got none")
    return tuple(keys.values())


def _parse_line(line: str, number: int) -> Key:
    name, separator, rest = line.rpartition(":")
    name, key = name.strip(), rest.strip()
    if separator and not _NAME.fullmatch(name):
        raise ValueError(f"line {number}: a name must be 1 to 64 of A-Z a-z 0-9 . _ -")
    if not _KEY.fullmatch(key):
        raise ValueError(f"line {number}: a key must be of A-Z a-z 0-9 . _ ~ + / - with = at its end only")
    if len(key) < MIN_KEY_CHARACTERS:
        raise ValueError(f"line {number}: a key must have at least {MIN_KEY_CHARACTERS} characters; it has {len(key)}")
    digest = sha256(key.encode())
    return Key(digest.digest(), name or f"key-{digest.hexdigest()[:8]}")
