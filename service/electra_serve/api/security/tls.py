"""Server-side TLS of both transports; new connections use renewed certificates, and open ones keep theirs."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from electra_serve.api.security.reloading import ReloadingFile
from electra_serve.errors import SettingsError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: certificate with intermediates, unencrypted key, and authorities of client certificates."""

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Credentials:
    """Contents of the files, in PEM, and an SSL context for HTTP.

    The context verifies client certificates but does not require one, since probes have none: `Authenticator` does.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class ServerTls:
    """Current TLS credentials; raises `SettingsError` for a file that is not PEM or a key of another certificate."""

    def __init__(
        self, files: TlsFiles, log: structlog.typing.FilteringBoundLogger, *, now: Callable[[], float] = time.time
    ) -> None:
        self._files = files
        paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]
        self._credentials = ReloadingFile("TLS certificate", paths, lambda: read_credentials(files), log, now=now)

    @property
    def asks_clients(self) -> bool:
        """True if clients need a certificate."""
        return self._files.client_ca is not None

    @property
    def credentials(self) -> Credentials:
        """Credentials for a new connection."""
        return self._credentials.current

    def context(self) -> ssl.SSLContext:
        """Returns a context that switches each handshake to the current credentials.

        OpenSSL calls the SNI callback in each handshake, even if the client names no server.
        """
        context = read_credentials(self._files).context

        def choose(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            connection.context = self.credentials.context

        context.sni_callback = choose
        return context


def read_credentials(files: TlsFiles) -> Credentials:
    """Reads the files and checks that they belong together; see `ServerTls` for errors."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _never_resume(context)
    reading = files.certificate
    try:
        certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
        context.load_cert_chain(files.certificate, files.key, password="")  # else OpenSSL asks a terminal
        client_ca = None
        if files.client_ca is not None:
            reading = files.client_ca
            client_ca = files.client_ca.read_bytes()
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").lower().replace("_", " ")
        raise SettingsError(f"TLS file {reading} cannot be used: {reason}") from error
    except OSError as error:
        raise SettingsError(f"TLS file {error.filename or reading} cannot be read: {error.strerror}") from error
    return Credentials(certificate, key, client_ca, context)


def _never_resume(context: ssl.SSLContext) -> None:
    """Disables session resumption, which would skip the verification of the client's certificate.

    OpenSSL resumes a session by the ticket keys of the first context, and its authority may be replaced since.
    """
    context.num_tickets = 0  # TLS 1.3
    context.options |= ssl.OP_NO_TICKET  # TLS 1.2
