"""TLS files of clients of both transports."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of a client."""

    ca_file: str | Path | None = None  # trusted authorities; None for the system's
    certificate_file: str | Path | None = None  # certificate chain for servers that require one, the client's own first
    key_file: str | Path | None = None  # private key of the certificate; None without one

    def context(self) -> ssl.SSLContext:
        """Returns the context for httpx; raises `OSError` if a file is unreadable or not PEM."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials for a gRPC channel; raises `OSError` if a file is unreadable."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.certificate_file),
        )


def _read(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()
