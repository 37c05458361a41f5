"""Tensors as raw bytes: little-endian and row-major, texts with their length before them.

Source: the binary tensor data extension of the Open Inference Protocol, whose raw contents gRPC
uses, too.
"""

import struct
from collections.abc import Sequence

import numpy as np

from edge_agent.serving.tensors import Datatype, Tensor
from edge_core.errors import InvalidInput

_LENGTH = struct.Struct("<I")


def read(name: str, datatype: Datatype, shape: Sequence[int], data: bytes) -> Tensor:
    """Make a tensor of raw bytes; raise :class:`InvalidInput` where they do not fill the shape."""
    if datatype == "BYTES":
        return Tensor(name, datatype, list(shape), _texts(name, data))
    # "<f4" and "<i8" are the array types of every machine that we run on.
    kind = np.dtype("<f4" if datatype == "FP32" else "<i8")
    if len(data) % kind.itemsize:
        raise InvalidInput(
            f"input {name[:64]} has {len(data)} bytes; each {datatype} has {kind.itemsize}"
        )
    return Tensor(name, datatype, list(shape), np.frombuffer(data, kind))


def written(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor."""
    if tensor.datatype == "BYTES":
        texts = [str(text).encode() for text in tensor.values]
        return b"".join([part for text in texts for part in (_LENGTH.pack(len(text)), text)])
    return np.asarray(tensor.values, "<f4" if tensor.datatype == "FP32" else "<i8").tobytes()


def _texts(name: str, data: bytes) -> list[str]:
    texts: list[str] = []
    place = 0
    while place < len(data):
        begin = place + _LENGTH.size
        if begin > len(data):
            raise InvalidInput(f"input {name[:64]} ends within the length of a text")
        place = begin + _LENGTH.unpack_from(data, place)[0]
        if place > len(data):
            raise InvalidInput(f"input {name[:64]} has a text that is longer than its bytes")
        try:
            texts.append(data[begin:place].decode())
        except UnicodeDecodeError as error:
            raise InvalidInput(f"input {name[:64]} has a text that is not UTF-8") from error
    return texts
