"""Bits in a row, first bit first: written as text, read within what there is.

A text of ``0`` and ``1`` is what Python finds, cuts and converts quickest.
"""

from edge_core.errors import InvalidMessage


def to_bytes(bits: str) -> bytes:
    """Bits -> bytes; the last byte is filled up with zeros."""
    whole = -(-len(bits) // 8)
    return int(bits.ljust(8 * whole, "0") or "0", 2).to_bytes(whole, "big")


class BitReader:
    """Takes bits from the front. No reading makes more of them than the bytes hold."""

    def __init__(self, data: bytes) -> None:
        self._bits = bin(int.from_bytes(b"\x01" + data, "big"))[3:]
        self._size = len(self._bits)
        self._place = 0

    def take(self, width: int) -> int:
        """The next ``width`` bits as a number; raise :class:`InvalidMessage` at the end."""
        if not width:
            return 0
        stop = self._place + width
        if stop > len(self._bits):
            raise InvalidMessage("packed counts are cut short")
        found = int(self._bits[self._place : stop], 2)
        self._place = stop
        return found

    def unary(self, most: int) -> int:
        """Ones before the next zero, which is taken too; after ``most`` ones none is looked for.

        Raises:
            InvalidMessage: the bits end first.
        """
        zero = self._bits.find("0", self._place, self._place + most)
        if zero >= 0:
            found = zero - self._place
            self._place = zero + 1
            return found
        if self._place + most > len(self._bits):
            raise InvalidMessage("packed counts are cut short")
        self._place += most
        return most

    def after_ones(self, width: int, most: int, widest: int) -> int:
        """As :meth:`unary` and then :meth:`take`, in one step: servers do little else.

        Fewer than ``most`` ones are the part above ``width`` bits; else ``widest`` bits follow.
        """
        start = self._place
        zero = self._bits.find("0", start, start + most)
        if zero < 0:
            self.unary(most)
            return self.take(widest)
        stop = zero + 1 + width
        if stop > self._size:
            raise InvalidMessage("packed counts are cut short")
        self._place = stop
        if not width:
            return zero - start
        return zero - start << width | int(self._bits[zero + 1 : stop], 2)

    def finish(self) -> None:
        """Raise :class:`InvalidMessage` unless only the last byte's filling is left."""
        rest = self._bits[self._place :]
        if len(rest) > 7 or "1" in rest:
            raise InvalidMessage(f"{len(rest)} bits follow the packed counts")
