"""Whole numbers and short texts in a row of bytes; small numbers take one byte.

The encoding is LEB128, as in Protocol Buffers: seven bits a byte, lowest first, the eighth says
that more follow. Negative numbers are folded into even and odd ones.
"""

from edge_core.errors import InvalidMessage

LARGEST = 2**63 - 1
MOST_BYTES = 9


def unsigned(value: int) -> bytes:
    """Write 0 to LARGEST; ``ValueError`` for anything else."""
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{value} is not between 0 and {LARGEST}")
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def signed(value: int) -> bytes:
    """Write a number whose folded value fits."""
    return unsigned(2 * value if value >= 0 else -2 * value - 1)


def text(value: str) -> bytes:
    """Write a text with its length before it."""
    data = value.encode()
    return unsigned(len(data)) + data


class ByteReader:
    """Takes from the front; every method raises :class:`InvalidMessage` where bytes are missing."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, size: int) -> bytes:
        """So many bytes."""
        if size > len(self._data) - self._place:
            raise InvalidMessage("the window is cut short")
        found = self._data[self._place : self._place + size]
        self._place += size
        return found

    def unsigned(self) -> int:
        """A number of at most nine bytes."""
        value = 0
        for position in range(MOST_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 127) << 7 * position
            if byte < 128:
                return value
        raise InvalidMessage(f"a number has more than {MOST_BYTES} bytes")

    def signed(self) -> int:
        """A folded number."""
        value = self.unsigned()
        return -(value + 1) // 2 if value & 1 else value // 2

    def text(self, most: int) -> str:
        """A text of at most so many bytes of UTF-8."""
        size = self.unsigned()
        if size > most:
            raise InvalidMessage(f"a text has {size} bytes; the limit is {most}")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise InvalidMessage("a text is not UTF-8") from error

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._data) - self._place)
