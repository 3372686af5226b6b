"""API keys: who may ask, and under which name.

A key file holds one key a line, `key` or `name:key`; blank lines and those that begin with `#` are passed over. A name
may stand before several keys, so that a client's next key can be there before its last one goes. A key
without a name is called after the first digits of its digest.

Invariants:
    No key is kept: only its SHA-256. None is written anywhere, in no message and no log.
    Every key is compared with, in time that does not depend on what is equal.
    Once begun, there is always at least one key: see `ReloadingFile`.
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

MIN_KEY_CHARACTERS: Final = 16
"""Shorter keys can be guessed."""
MAX_FILE_BYTES: Final = 2**20

_KEY: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750's b64token: what `Authorization: Bearer` can carry."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key that is accepted.

    Attributes:
        digest: SHA-256 of it.
        client: Whose it is.
    """

    digest: bytes
    client: str


class KeyRing:
    """The keys of a file, as they are now.

    Args:
        path: The file.
        log: Where it is told that the file has changed, or cannot be taken.
        now: Seconds since the epoch, as the file system counts them.

    Raises:
        SettingsError: The file cannot be read, holds no key or a bad one, or anyone may write to it.
    """

    def __init__(
        self, path: Path, log: structlog.typing.FilteringBoundLogger, *, now: Callable[[], float] = time.time
    ) -> None:
        self._keys = ReloadingFile("API keys", [path], partial(read_keys, path), log, now=now)

    def client_of(self, candidate: str | None) -> str:
        """The name of the client whose key this is.

        Args:
            candidate: What came with the request; None where nothing did.

        Raises:
            Unauthenticated: No key of the file is the same.
        """
        digest = sha256((candidate or "").encode(errors="replace")).digest()
        client = None
        for key in self._keys.current:
            if hmac.compare_digest(key.digest, digest):
                client = key.client
        if client is None:
            raise Unauthenticated(
                "a valid API key is needed, as authorization: Bearer or x-api-key; "
                f"received {'none' if candidate is None else 'another'}"
            )
        return client


def read_keys(path: Path) -> Sequence[Key]:
    """The keys of a file.

    Raises:
        SettingsError: As `KeyRing` says.
    """
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
        raise SettingsError(f"API key file {path}: {reason}") from None  # the cause holds what stands in the file


def parse_keys(text: str) -> Sequence[Key]:
    r"""The keys of a file's text.

    Raises:
        ValueError: A line is no key, a key stands there twice, or there is none. Names the line, not what is in it.

    Example:
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
            raise ValueError(f"line {number}: each key may stand there once; this one did before")
        keys[key.digest] = key
    if not keys:
        raise ValueError("at least one key is needed; it holds none")
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
