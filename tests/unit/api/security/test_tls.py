"""TLS of both transports: their certificates, those of clients, reloading, and invalid files."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog
from structlog.testing import LogCapture

from electra_serve.api.grpc.server import CertificateRenewal
from electra_serve.api.rest.server import HttpServer
from electra_serve.api.security.authentication import Authenticator
from electra_serve.api.security.tls import ServerTls, TlsFiles
from electra_serve.client import AsyncElectraClient, AsyncGrpcElectraClient, RetryPolicy, Tls, TransportError
from electra_serve.errors import SettingsError, Unauthenticated
from electra_serve.settings.schema import GrpcSettings, RestSettings
from tests.certificates import Authority
from tests.fake_service import FakeService
from tests.serving import HOST, grpc_server, rest_server
from tests.unit.api.grpc.conftest import observer
from tests.unit.api.rest.conftest import Rest
from tests.waiting import until

ONCE = RetryPolicy(max_attempts=1)
IDS = [[1, 2]]


def log() -> structlog.typing.FilteringBoundLogger:
    wrapped: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(None, [LogCapture()])
    return wrapped


class Clock:
    """The file system's clock, which tests can advance."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class Served:
    """Both transports behind one certificate."""

    authority: Authority
    clock: Clock
    rest: Rest
    http: HttpServer
    rest_port: int
    grpc_port: int

    async def ask(self, tls: Tls) -> None:
        """Encodes over both transports."""
        for client in (
            AsyncElectraClient(f"https://{HOST}:{self.rest_port}", retry=ONCE, tls=tls),
            AsyncGrpcElectraClient(f"{HOST}:{self.grpc_port}", retry=ONCE, tls=tls),
        ):
            async with client:
                assert (await client.encode(token_ids=IDS, timeout_s=10)).tokens == 2


@asynccontextmanager
async def serve(folder: Path, *, client_ca: Path | None = None, body_timeout_s: float = 5.0) -> AsyncIterator[Served]:
    authority, clock, rest = Authority(folder), Clock(), Rest()
    certificate, key = authority.issue("server", HOST)
    tls = ServerTls(TlsFiles(certificate, key, client_ca), log(), now=clock)
    authenticator, limits = Authenticator(certified=client_ca is not None), RestSettings(body_timeout_s=body_timeout_s)
    grpc = GrpcSettings(port=0)
    async with (
        rest_server(rest.app(limits, authenticator), limits, tls) as (http, rest_port),
        grpc_server(FakeService(), grpc, observer(), max_sequences=8, authenticator=authenticator, tls=tls) as (
            _,
            port,
        ),
    ):
        yield Served(authority, clock, rest, http, rest_port, port)


async def test_both_transports_show_their_certificate(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        await served.ask(Tls(served.authority.file))


async def test_a_client_that_trusts_another_authority_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with serve(tmp_path) as served:
        for client in (
            AsyncElectraClient(f"https://{HOST}:{served.rest_port}", retry=ONCE, tls=Tls(other.file)),
            AsyncGrpcElectraClient(f"{HOST}:{served.grpc_port}", retry=ONCE, tls=Tls(other.file)),
        ):
            async with client:
                with pytest.raises(TransportError):
                    await client.encode(token_ids=IDS, timeout_s=5)


async def test_a_renewed_certificate_is_shown_to_the_next_connection(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        await served.ask(Tls(served.authority.file))
        renewed = Authority(tmp_path)
        renewed.issue("server", HOST)
        served.clock.ahead_s += 1.0
        await served.ask(Tls(renewed.file))


def test_grpc_is_given_each_certificate_once(tmp_path: Path) -> None:
    """gRPC's core crashes under a burst of connections if it is given the same one at each."""
    authority, clock = Authority(tmp_path), Clock()
    tls = ServerTls(TlsFiles(*authority.issue("server", HOST), None), log(), now=clock)
    renewal = CertificateRenewal(tls)
    assert [renewal.fetch() for _ in range(3)] == [None] * 3
    authority.issue("server", HOST, age_s=30.0)
    clock.ahead_s += 1.0
    assert renewal.fetch() is not None
    assert renewal.fetch() is None


async def test_half_a_renewal_waits_for_the_other_half(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        trusted = Tls(served.authority.file)
        key = (tmp_path / "server.key").read_bytes()
        served.authority.issue("server", HOST)
        (tmp_path / "server.key").write_bytes(key)
        served.clock.ahead_s += 5.0
        await served.ask(trusted)


async def test_a_client_must_show_a_certificate_but_to_the_probes(tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    clients = Authority(tmp_path / "clients")
    certificate, key = clients.issue("client", "client.test")
    async with serve(tmp_path, client_ca=clients.file) as served:
        trusted = served.authority.file
        await served.ask(Tls(trusted, certificate, key))

        url = f"https://{HOST}:{served.rest_port}"
        async with AsyncElectraClient(url, retry=ONCE, tls=Tls(trusted)) as client:
            with pytest.raises(Unauthenticated, match="certificate"):
                await client.encode(token_ids=IDS)
        async with httpx.AsyncClient(verify=Tls(trusted).context()) as plain:
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await plain.get(url + path)).status_code == 200
        async with AsyncGrpcElectraClient(f"{HOST}:{served.grpc_port}", retry=ONCE, tls=Tls(trusted)) as client:
            with pytest.raises(TransportError):
                await client.encode(token_ids=IDS, timeout_s=5)


async def test_a_certificate_of_another_authority_is_as_good_as_none(tmp_path: Path) -> None:
    for name in ("clients", "strangers"):
        (tmp_path / name).mkdir()
    clients, strangers = Authority(tmp_path / "clients"), Authority(tmp_path / "strangers")
    certificate, key = strangers.issue("client", "client.test")
    async with serve(tmp_path, client_ca=clients.file) as served:
        shown = Tls(served.authority.file, certificate, key)
        for client in (
            AsyncElectraClient(f"https://{HOST}:{served.rest_port}", retry=ONCE, tls=shown),
            AsyncGrpcElectraClient(f"{HOST}:{served.grpc_port}", retry=ONCE, tls=shown),
        ):
            async with client:
                with pytest.raises(TransportError):
                    await client.encode(token_ids=IDS, timeout_s=5)
        assert served.rest.service.requests == []


async def test_a_handshake_and_a_head_have_their_time(tmp_path: Path) -> None:
    async with serve(tmp_path, body_timeout_s=0.1) as served:
        silent, nothing = await asyncio.open_connection(HOST, served.rest_port)
        context = Tls(served.authority.file).context()
        begun, head = await asyncio.open_connection(HOST, served.rest_port, ssl=context)
        head.write(b"GET /livez HTTP/1.1\r\n")
        async with asyncio.timeout(10):
            assert await silent.read() == b""
            assert await begun.read() == b""
        for writer in (nothing, head):
            writer.close()


async def test_a_stop_does_not_wait_for_connections_that_are_idle(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        context = Tls(served.authority.file).context()
        reader, writer = await asyncio.open_connection(HOST, served.rest_port, ssl=context)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        served.http.should_exit = True
        await until(lambda: not served.http.server_state.connections)
        writer.close()


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
    """A handshake in memory; what the client has of it, with the session that it may come back with."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=HOST, session=session)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for step in (near.do_handshake, far.do_handshake, near.do_handshake, far.do_handshake):
        with suppress(ssl.SSLWantReadError):
            step()
    far.write(b"x")
    assert near.read(1) == b"x"  # tickets of TLS 1.3 come before it
    return near


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_a_replaced_authority_does_not_come_back_by_its_session(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    server, old, new = Authority(tmp_path), Authority(tmp_path / "old"), Authority(tmp_path / "new")
    certificate, key = server.issue("server", HOST)
    client_ca, clock = old.file, Clock()
    context = ServerTls(TlsFiles(certificate, key, client_ca), log(), now=clock).context()
    client = Tls(server.file, *old.issue("client", "client.test")).context()
    client.maximum_version = version

    session = shake_hands(context, client, None).session
    assert not shake_hands(context, client, session).session_reused
    new.ca.cert_pem.write_to_path(client_ca)
    clock.ahead_s += 5.0
    for resumed in (session, None):
        with pytest.raises(ssl.SSLError):
            shake_hands(context, client, resumed)


@pytest.mark.parametrize(
    ("spoiled", "content", "message"),
    [
        ("server.pem", b"", "cannot be used"),
        ("server.key", b"no key", "cannot be used"),
        ("server.pem", None, r"server.pem cannot be read: No such file"),
        ("server.key", None, r"server.key cannot be read: No such file"),
        ("ca.pem", b"", "ca.pem cannot be used"),
        ("ca.pem", None, "ca.pem cannot be read: No such file"),
    ],
)
def test_files_that_will_not_do_are_one_line(tmp_path: Path, spoiled: str, content: bytes | None, message: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", HOST)
    files = TlsFiles(certificate, key, authority.file)
    if content is None:
        (tmp_path / spoiled).unlink()
    else:
        (tmp_path / spoiled).write_bytes(content)
    with pytest.raises(SettingsError, match=message) as rejection:
        ServerTls(files, log())
    assert "\n" not in str(rejection.value)


def test_a_key_of_another_certificate_is_rejected(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("server", HOST)
    _, key = authority.issue("other", HOST)
    with pytest.raises(SettingsError, match="key values mismatch"):
        ServerTls(TlsFiles(certificate, key, None), log())


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("server", HOST)
    tls = ServerTls(TlsFiles(certificate, key, None), log())
    assert tls.credentials.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls.context().minimum_version is ssl.TLSVersion.TLSv1_2
