"""The real gRPC server of the server's own tests, for clients to speak to."""

from __future__ import annotations

from tests.unit.api.grpc.conftest import running, settings

__all__ = ["running", "settings"]
