"""The gRPC server: the encoder, the Open Inference Protocol, health and reflection on one port."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from electra_serve.api.connections import ConnectionTable
from electra_serve.api.grpc.codec import DEFAULT_APIS, Codec
from electra_serve.api.grpc.connections import ConnectionWatch, PeerCalls
from electra_serve.api.grpc.health import SERVICE as HEALTH_SERVICE
from electra_serve.api.grpc.health import Health
from electra_serve.api.grpc.message_reader import MessageReader
from electra_serve.api.grpc.oip.codec import InferCodec
from electra_serve.api.grpc.oip.servicer import SERVICE as INFERENCE_SERVICE
from electra_serve.api.grpc.oip.servicer import InferenceServicer
from electra_serve.api.grpc.parsing import MAX_SMALL_BYTES
from electra_serve.api.grpc.receiver import Receiver
from electra_serve.api.grpc.reflection import SERVICE as REFLECTION_SERVICE
from electra_serve.api.grpc.reflection import Reflection
from electra_serve.api.grpc.servicer import SERVICE as ENCODER_SERVICE
from electra_serve.api.grpc.servicer import EncoderServicer
from electra_serve.api.grpc.transfer import Transfer
from electra_serve.api.oip.parts import OipParts
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.api.security.tls import Credentials, ServerTls
from electra_serve.api.service_protocol import EncodeService
from electra_serve.api.sockets import disconnect_clients, listen
from electra_serve.errors import StartupError
from electra_serve.observability.requests import RequestObserver
from electra_serve.runtime.work_thread import WorkThread
from electra_serve.serving.transit_budget import TransitBudget
from electra_serve.settings.schema import ApiSettings, GrpcSettings

MAX_CONNECTION_AGE_S: Final = 600
"""Then a connection takes no new calls, and its client opens another, which a load balancer may route elsewhere. Calls
in progress continue."""
# Clients may send a keepalive ping this often. gRPC's default of 300 s disconnects clients that do.
MIN_PING_INTERVAL_S: Final = 10
MAX_CONNECTION_IDLE_S: Final = 300  # then a connection without calls closes
PEER_PING_S: Final = 60  # A silent client is pinged after this, so that calls of dead clients end
PEER_PING_TIMEOUT_S: Final = 20  # seconds for the response to a ping
HANDSHAKE_S: Final = 10  # seconds for the handshakes of TLS and HTTP/2
MAX_CONCURRENT_STREAMS: Final = 4096
"""Concurrent calls of one connection. Clients delay further calls silently. This is more than the queue admits by
default, so that calls are rejected with an error instead."""
MAX_PENDING_CALLS: Final = 16_384
"""Calls that the event loop has not accepted yet. By default gRPC cancels some from 1,000 on, with a status that no
client retries. A burst must be rejected with an error instead."""
MAX_PENDING_S: Final = 600  # Likewise, gRPC cancels such calls after 30 s by default; deadlines end them earlier
# Read buffer of one connection. By default a large message grows it to half a megabyte until the connection closes.
MAX_READ_BUFFER_BYTES: Final = 65_536
# Metadata of one call, as of a request's head on REST. gRPC has two limits and rejects at random between them.
MAX_METADATA_BYTES: Final = 32 * 2**10
# Seconds that clients without an open call have to close their connections when the server stops
GOODBYE_S: Final = 1.0
# Concurrent receptions of health and reflection. They need no key, and each may take 4 MB.
MAX_OPEN_RECEIVED: Final = 16
NEVER_S: Final = 1e8
LINGER_S: Final = 0.1
"""Seconds in which a stopping server rejects new calls with UNAVAILABLE, which clients retry elsewhere. Calls that
arrive while connections close get CANCELLED, which clients do not retry."""


class GrpcServer:
    """Serves the encoder over gRPC, and the Open Inference Protocol if its parts are given."""

    def __init__(
        self,
        service: EncodeService,
        settings: GrpcSettings,
        observer: RequestObserver,
        *,
        max_sequences: int,
        budget: TransitBudget,
        connections: ConnectionTable,
        thread: WorkThread | None = None,
        authenticator: Authenticator = ALLOW_ALL,
        tls: ServerTls | None = None,
        apis: ApiSettings = DEFAULT_APIS,
        oip: OipParts | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls
        calls, reader = PeerCalls(), MessageReader()
        self._watch = ConnectionWatch(connections, calls)
        self._transfer = Transfer(
            budget,
            reader,
            max_request_bytes=settings.max_request_bytes,
            receive_timeout_s=settings.receive_timeout_s,
            send_timeout_s=settings.send_timeout_s,
            calls=calls,
        )
        thread = thread or WorkThread("decoder")
        codec = Codec(
            thread,
            max_sequences=max_sequences,
            max_response_bytes=settings.max_message_bytes,
            max_inputs=apis.max_inputs,
            max_documents=apis.max_documents,
        )
        self._open_receiver = Receiver(
            reader, settings.receive_timeout_s, max_concurrent=MAX_OPEN_RECEIVED, max_bytes=MAX_SMALL_BYTES
        )
        self._servicers: dict[ServiceDescriptor, EncoderServicer | InferenceServicer] = {
            ENCODER_SERVICE: EncoderServicer(
                service,
                observer,
                codec=codec,
                max_stream_requests=settings.max_stream_requests,
                max_answer_bytes=settings.max_message_bytes,
                transfer=self._transfer,
                authenticator=authenticator,
            )
        }
        if oip is not None:
            self._servicers[INFERENCE_SERVICE] = InferenceServicer(
                service,
                oip,
                codec=codec,
                infer_codec=InferCodec(thread, max_sequences=max_sequences),
                thread=thread,
                receiver=self._open_receiver,
                transfer=self._transfer,
                max_stream_requests=settings.max_stream_requests,
                max_answer_bytes=settings.max_message_bytes,
                authenticator=authenticator,
            )
        self._health = Health([served.full_name for served in self._servicers], self._open_receiver)
        self._reflection = Reflection([*self._servicers, HEALTH_SERVICE, REFLECTION_SERVICE], self._open_receiver)
        self._server: grpc.aio.Server | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._port = 0

    async def start(self) -> int:
        """Starts serving, with health NOT_SERVING; returns the port. Raises `StartupError` if it is taken."""
        server = grpc.aio.server(options=_options(self._settings))
        server.add_generic_rpc_handlers(
            (
                *(
                    grpc.method_handlers_generic_handler(served.full_name, servicer.methods())
                    for served, servicer in self._servicers.items()
                ),
                self._health.handler(),
                self._reflection.handler(),
            )
        )
        port = _bind(server, self._settings, self._tls)
        await server.start()
        self._server, self._port = server, port
        self._watch.start(port)
        return port

    def set_serving(self, serving: bool) -> None:
        """Sets the health that probes see. Requests are served in either state."""
        self._health.set_serving(serving)

    async def stop(self, grace_s: float) -> None:
        """Rejects new calls, and cancels the others after `grace_s`, which a second call of `stop` may shorten."""
        self._health.close()
        self._open_receiver.drain(0.0)
        self._transfer.drain(grace_s)
        for servicer in self._servicers.values():
            servicer.drain()
        if self._server is not None:
            linger_s = min(LINGER_S, grace_s)
            await asyncio.sleep(linger_s)
            stopping = asyncio.create_task(self._stop_within(self._server, grace_s - linger_s))
            await self._disconnect_silent_clients(stopping)
            await stopping
            self._watch.stop()

    async def _stop_within(self, server: grpc.aio.Server, grace_s: float) -> None:
        """Stops gRPC's server once, however often it is called.

        At the end of its own grace gRPC uses memory that another `stop` may have freed, so that grace never ends.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(server.stop(NEVER_S))
        await asyncio.wait((self._stopping,), timeout=grace_s)
        if not self._stopping.done():
            await server.stop(None)  # cancels all calls
        await self._stopping

    async def _disconnect_silent_clients(self, stopping: asyncio.Task[None]) -> None:
        """Disconnects clients without an open call that do not respond to gRPC's GOAWAY."""
        idle = asyncio.create_task(self._transfer.idle.wait())
        await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await asyncio.wait((stopping,), timeout=GOODBYE_S)
        if not stopping.done():
            await asyncio.get_running_loop().run_in_executor(None, disconnect_clients, self._port)


def _options(settings: GrpcSettings) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.experimental.tcp_max_read_buffer_size", MAX_READ_BUFFER_BYTES),
        ("grpc.http2.bdp_probe", 0),  # on, gRPC buffers megabytes of each call that is not read yet
        ("grpc.so_reuseport", 0),  # on, a second process binds the same port unnoticed
        ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_S * 1000),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_S * 1000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_time_ms", PEER_PING_S * 1000),
        ("grpc.keepalive_timeout_ms", PEER_PING_TIMEOUT_S * 1000),
        ("grpc.max_connection_idle_ms", MAX_CONNECTION_IDLE_S * 1000),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        ("grpc.server_max_unrequested_time_in_server", MAX_PENDING_S),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    )


def _bind(server: grpc.aio.Server, settings: GrpcSettings, tls: ServerTls | None) -> int:
    # gRPC writes to standard error by itself when it cannot bind, so the address is tried first.
    listen("gRPC", settings.host, settings.port).close()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        if tls is not None:
            return server.add_secure_port(f"{host}:{settings.port}", _server_credentials(tls))
        return server.add_insecure_port(f"{host}:{settings.port}")
    except RuntimeError as error:
        raise StartupError(f"gRPC cannot listen on {host}:{settings.port}: is the port taken?") from error


def _server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Returns credentials that can be renewed: gRPC asks for them at each connection, on threads of its own."""
    renewal = CertificateRenewal(tls)
    return grpc.dynamic_ssl_server_credentials(
        _certificates(renewal.used),
        renewal.fetch,  # type: ignore[arg-type]  # its stub omits None, which means no change
        require_client_authentication=tls.asks_clients,
    )


class CertificateRenewal:
    """Gives gRPC each renewed certificate once.

    gRPC's core replaces its certificate while other connections may be using it. Given one at each connection, the
    process crashes under some thousand connections.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self.used = tls.credentials

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns a renewed certificate; None if it is the same."""
        with self._lock:
            current = self._tls.credentials
            if current is self.used:
                return None
            self.used = current
            return _certificates(current)


def _certificates(held: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key, held.certificate)], held.client_ca)
