"""Products of stages that are plain data: hashed and stored by their canonical bytes."""

import hashlib
from typing import Self

import msgspec


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen value whose digest and stored form follow from its fields."""

    def pack(self) -> bytes:
        """MessagePack with sorted keys."""
        return msgspec.msgpack.encode(self, order="deterministic")

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The value that :meth:`pack` was called on."""
        return msgspec.msgpack.decode(data, type=cls)

    def digest(self) -> str:
        """Sha256 of the packed form."""
        return hashlib.sha256(self.pack()).hexdigest()
