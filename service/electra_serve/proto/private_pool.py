"""Defines messages in a descriptor pool of their own.

The default pool takes one file of each name and one message of each name. Several libraries bring `package inference`
of the Open Inference Protocol, and a process may use one of them with this package.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper


def define(module: dict[str, Any], serialized: bytes) -> None:
    """Sets the names in `module` that protoc's own code of a file without imports would set: messages and enums."""
    pool = descriptor_pool.DescriptorPool()
    name = descriptor_pb2.FileDescriptorProto.FromString(serialized).name
    pool.AddSerializedFile(serialized)
    file = pool.FindFileByName(name)
    module["DESCRIPTOR"] = file
    for message, descriptor in file.message_types_by_name.items():
        module[message] = message_factory.GetMessageClass(descriptor)
    for enum in file.enum_types_by_name.values():
        module[enum.name] = enum_type_wrapper.EnumTypeWrapper(enum)
        module.update((value.name, value.number) for value in enum.values)
