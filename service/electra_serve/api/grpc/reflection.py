"""gRPC's server reflection, for grpcurl and grpcui.

With the package's own servicer, one idle client makes each shutdown last its full grace. Here streams end with the
server, or if their next request does not arrive in time. `StreamSlots` and the `Receiver` limit their number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Final, TypeAlias

import grpc
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from electra_serve.api.grpc import status
from electra_serve.api.grpc.call import Context
from electra_serve.api.grpc.core_operations import uncancelled
from electra_serve.api.grpc.parsing import parse_small
from electra_serve.api.grpc.receiver import Receiver
from electra_serve.api.grpc.stream_slots import StreamSlots, TooManyStreams
from electra_serve.errors import ServiceError, ShuttingDown

SERVICE: Final[ServiceDescriptor] = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]  # type: ignore[assignment]  # the stub has its C class
NAME: Final = SERVICE.full_name

Request: TypeAlias = reflection_pb2.ServerReflectionRequest


class Reflection:
    """Describes services, whose files may be of several descriptor pools."""

    def __init__(self, services: Collection[ServiceDescriptor], receiver: Receiver) -> None:
        pool = DescriptorPool()
        for service in services:
            _add(service.file, pool)
        names = [service.full_name for service in services]
        self._servicer = reflection.aio.ReflectionServicer(names, pool=pool)
        self._receiver = receiver
        self._slots = StreamSlots("reflection streams")

    def handler(self) -> grpc.GenericRpcHandler:
        """The method, for a server to add."""
        return grpc.method_handlers_generic_handler(
            NAME, {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._describe)}
        )

    async def _describe(self, _: AsyncIterator[bytes], context: Context) -> None:
        try:
            with self._slots.hold(context.peer()):
                responses = self._servicer.ServerReflectionInfo(self._requests(context), context)
                async for response in responses:  # type: ignore[attr-defined]  # a generator, which its stub omits
                    await uncancelled(context.write(response.SerializeToString()))
        except TooManyStreams as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except ServiceError as error:
            await context.abort(status.code_of(error), error.message)

    async def _requests(self, context: Context) -> AsyncIterator[Request]:
        """Yields requests until the client or the server ends the stream."""
        try:
            while (data := await self._receiver.receive_next(context)) is not None:
                yield parse_small(Request, data)
        except ShuttingDown:
            return


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    """Adds a file to a pool, after the files that it imports; adding it again changes nothing."""
    for imported in file.dependencies:
        _add(imported, pool)
    pool.AddSerializedFile(file.serialized_pb)
