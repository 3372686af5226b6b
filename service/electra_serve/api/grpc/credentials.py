"""TLS for the gRPC server."""

from __future__ import annotations

import grpc

from electra_serve.api.security.tls import Credentials, ServerTls


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """What a server's port takes. gRPC asks anew for each connection, on a thread of its own."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        return _configuration(tls.credentials)

    return grpc.dynamic_ssl_server_credentials(
        configuration(), configuration, require_client_authentication=tls.asks_clients
    )


def _configuration(held: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key, held.certificate)], held.client_ca)
