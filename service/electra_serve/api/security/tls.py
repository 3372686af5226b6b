"""The server's side of TLS for both transports: which files, and what they hold now.

Certificates are renewed while the service runs, every few weeks or every few hours. Each new connection gets what
the files hold then; those that exist keep what they began with.
"""

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
    """PEM files.

    Attributes:
        certificate: The server's, the certificates that signed it after it.
        key: Its private key, not encrypted.
        client_ca: Who signs clients' certificates; None: no client is asked for one.
    """

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Credentials:
    """What the files held when they were read.

    Attributes:
        certificate: PEM.
        key: PEM.
        client_ca: PEM, or None.
        context: The same for HTTP. Who shows a certificate must show a good one; who shows none is told apart later,
            since probes have none to show.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class ServerTls:
    """What to serve TLS with, as the files have it now.

    Args:
        files: Where it is.
        log: Where it is told that it was renewed, or cannot be.
        now: Seconds since the epoch, as the file system counts them.

    Raises:
        SettingsError: A file cannot be read, is not PEM, or the key is not the certificate's.
    """

    def __init__(
        self, files: TlsFiles, log: structlog.typing.FilteringBoundLogger, *, now: Callable[[], float] = time.time
    ) -> None:
        self._files = files
        paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]
        self._credentials = ReloadingFile("TLS certificate", paths, lambda: read_credentials(files), log, now=now)

    @property
    def asks_clients(self) -> bool:
        """Whether clients must show a certificate."""
        return self._files.client_ca is not None

    @property
    def credentials(self) -> Credentials:
        """For a connection that begins now."""
        return self._credentials.current

    def context(self) -> ssl.SSLContext:
        """A context for a server that keeps it: each handshake is handed on to that of the current credentials.

        OpenSSL asks which context to use in each handshake, whether the client names a server (SNI) or not.
        """
        context = read_credentials(self._files).context

        def choose(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            connection.context = self.credentials.context

        context.sni_callback = choose
        return context


def read_credentials(files: TlsFiles) -> Credentials:
    """Reads the files and checks that they belong together.

    Raises:
        SettingsError: As `ServerTls` says.
    """
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
    """Has each connection verify its client anew.

    OpenSSL resumes sessions by the keys of the context that a server began with, whichever context it is handed on to,
    and takes the client's certificate for as good as it was found then: by an authority that may be replaced since.
    """
    context.num_tickets = 0  # TLS 1.3
    context.options |= ssl.OP_NO_TICKET  # TLS 1.2
