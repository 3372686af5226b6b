"""What a client trusts and shows over TLS, the same for both transports."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of a client's side of TLS.

    Attributes:
        ca_file: Certificates of whom to trust; None: of the authorities that everyone trusts.
        certificate_file: What to show to a server that asks for it, the certificates that signed it after it.
        key_file: Its private key; None where `certificate_file` is.
    """

    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None

    def context(self) -> ssl.SSLContext:
        """For httpx.

        Raises:
            OSError: A file cannot be read, or is not PEM.
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC channel.

        Raises:
            OSError: A file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.certificate_file),
        )


def _read(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()
