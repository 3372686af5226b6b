"""Certificates for tests, made on the spot."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates, and writes them as files for services and clients.

    Attributes:
        folder: For the files.
    """

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    @property
    def file(self) -> Path:
        """Its own certificate."""
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def issue(self, name: str, *hosts: str, age_s: float = 60.0) -> tuple[Path, Path]:
        """A certificate for `hosts` and its key, in place of those of that name, as if written `age_s` ago."""
        made = self.ca.issue_cert(*hosts)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self._put(certificate, b"".join(pem.bytes() for pem in made.cert_chain_pems), age_s)
        self._put(key, made.private_key_pem.bytes(), age_s)
        return certificate, key

    def _put(self, path: Path, content: bytes, age_s: float) -> None:
        written = path.with_suffix(".written")
        written.write_bytes(content)
        then = written.stat().st_mtime - age_s
        os.utime(written, (then, then))
        written.rename(path)
