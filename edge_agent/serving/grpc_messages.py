"""Messages of the Open Inference Protocol over gRPC, from the descriptor beside this file.

They live in a descriptor pool of their own: other packages in a process define the same names. No
code is generated, so no version of it has to fit that of protobuf.
"""

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTOR = "open_inference.binpb"
PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"


def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    data = resources.files("edge_agent.serving").joinpath(DESCRIPTOR).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


_POOL = _pool()


def of(name: str) -> Any:
    """The class of a message of the protocol; ``KeyError`` for an unknown name."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
