"""Makes bad inputs of good ones: within their structure, and byte by byte."""

import copy
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tests.fuzz import trees
from tests.fuzz.forms import NESTED, Form
from tests.fuzz.trees import Extension, Pairs, Verbatim

Case = tuple[bytes, ...]
"""One input: its parts."""

DEEP = 2000
MANY = 3000
MOST_BYTES = 4 * 1024 * 1024
INTEGERS = [
    0, 1, -1, 2, 7, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**40 + 1,
    2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400,
    -(2**31), -(2**63), -(10**30),
]  # fmt: skip
FLOATS = [0.0, -0.0, 0.5, -1.5, 1e-320, 3.5e38, 1e300, 1.8e308, float("nan"), float("inf")]
TEXTS = [
    "", " ", "\0", "\n", "a\nb", "\u2028", "\x1b[31m", "é", "日本語", "😀", "\ud800",
    "../../x", "/etc/passwd",
    "NaN", "1e999", "true", "null", "x" * 65, "x" * 513, "x" * 70_000, "\x01" * 60_000, "%s%n{}{0}",
    "[[", "\u0661", "a" * 64, "0" * 64,
]  # fmt: skip
RAW_JSON = [
    b"NaN", b"-Infinity", b"1e999", b"1e-999", b"00", b"+1", b"'a'", b"{", b"]", b'"\xff\xfe"', b"",
    b'"\\ud800"', b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP, b"1" * 5000,
    b"-0", b"1.0", b"1E400", b"\xef\xbb\xbf1", b'{"a":1,"a":2}',
]  # fmt: skip
RAW_MSGPACK = [
    b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff\0\0\0\0",
    b"\xd7\xff" + b"\xff" * 8,
    b"\xc7\x0c\xff" + b"\xff" * 12, b"\xa2\xff\xfe", b"\x91" * DEEP + b"\xc0",
    b"\x81\xa1a" * DEEP + b"\xc0",
    b"\xca\x7f\xc0\0\0", b"\x82\xa1a\x01\xa1a\x02", b"\x81\x01\x02", b"\x81\x90\x02", b"",
]  # fmt: skip
MARKS = [
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\x80\0",
    *RAW_MSGPACK[:6],
]  # fmt: skip


class Mutator:
    """Draws from one seeded generator: the same seed gives the same inputs."""

    def __init__(self, seed: int, forms: Sequence[Form], seeds: Sequence[Case]) -> None:
        self._random = random.Random(seed)
        self._forms = forms
        self._seeds = seeds

    def case(self) -> Case:
        """One input: a good one, of which one part or two are changed."""
        draw = self._random
        parts = list(draw.choice(self._seeds))
        # The last part is the one with the most inside.
        weights = [1] * (len(parts) - 1) + [4]
        for place in draw.choices(range(len(parts)), weights, k=draw.choice((1, 1, 1, 2))):
            other = draw.choice(self._seeds)[place]
            parts[place] = self._part(self._forms[place], parts[place], other)[:MOST_BYTES]
        return tuple(parts)

    def _part(self, form: Form, data: bytes, other: bytes) -> bytes:
        draw = self._random.random()
        if draw < 0.03:
            return self._random.randbytes(self._random.choice((0, 1, 3, 16, 200, 5000)))
        if draw < 0.7:
            data = self._inside(form, data, other)
        return self._bytes(data, other) if draw > 0.6 else data

    def _inside(self, form: Form, data: bytes, other: bytes) -> bytes:
        try:
            holder = [form.read(data)]
            donor = [form.read(other)]
        except (ValueError, RecursionError):
            return self._bytes(data, other)
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 5))):
            found = list(trees.places(holder))
            held, index = self._random.choice(found) if found else (holder, 0)
            self._change(form, holder, held, index, donor)
        try:
            return form.write(holder[0] if holder else None)
        except (ValueError, TypeError, RecursionError, OverflowError):
            return self._bytes(data, other)

    def _change(
        self, form: Form, holder: list[Any], held: list[Any], index: int, donor: list[Any]
    ) -> None:
        draw = self._random
        value = held[index]
        match draw.randrange(10):
            case 0 | 1 | 2:
                held[index] = self._near(value)
            case 3 | 4:
                held[index] = self._any(form)
            case 5:
                places = list(trees.places(draw.choice((holder, donor))))
                if places:
                    other, place = draw.choice(places)
                    held[index] = copy.deepcopy(other[place])  # never a part of itself
            case 6 if isinstance(value, list) and value:
                del value[draw.randrange(len(value))]
            case 7 if isinstance(value, list) and 0 < len(value) < MANY:
                again = draw.choice(value)
                again = list(again) if isinstance(value, Pairs) else again
                # Many of what holds others would be many times many after a few changes.
                large = isinstance(again, list) and not isinstance(value, Pairs)
                value.extend([again] * draw.choice((1, 1, 2) if large else (1, 1, 2, 10, MANY)))
            case 8 if isinstance(value, Pairs):
                value.append([draw.choice(["v", "extra", "", *TEXTS[:8]]), self._any(form)])
            case 9 if not (isinstance(held, Pairs) or (len(held) == 2 and index == 0)):
                for _ in range(draw.choice((1, 2, 50))):
                    held[index] = [held[index]]
            case _:
                held[index] = self._near(value)

    def _near(self, value: Any) -> Any:
        """Something of the same type."""
        draw = self._random
        match value:
            case bool():
                return not value
            case int():
                return draw.choice([value + 1, value - 1, -value, value * 1000, *INTEGERS])
            case float():
                return draw.choice([value * 1e9, -value, value / 3, *FLOATS])
            case str():
                cut = value[: draw.randrange(len(value) + 1)]
                doubled = value + value
                return draw.choice([cut, doubled, value + draw.choice(TEXTS), *TEXTS])
            case bytes():
                for form in NESTED if draw.random() < 0.5 else ():
                    try:
                        form.read(value)
                    except (ValueError, RecursionError):
                        continue
                    return self._inside(form, value, value)
                return self._bytes(value, value)
            case list() if value:
                draw.shuffle(value)
                return value
            case _:
                return draw.choice([1, "x", b"x", [], Pairs()])

    def _any(self, form: Form) -> Any:
        """Something of any type."""
        draw = self._random
        choices: list[Callable[[], Any]] = [
            lambda: draw.choice(INTEGERS),
            lambda: draw.choice(FLOATS),
            lambda: draw.choice(TEXTS),
            lambda: draw.choice([None, True, False, [], Pairs(), b"", [[]], Pairs([["a", 1]])]),
            lambda: draw.randbytes(draw.choice((1, 4, 8, 33, 4096))),
            lambda: Extension(draw.randrange(-128, 128), draw.randbytes(draw.choice((0, 4, 12)))),
            lambda: Verbatim(draw.choice(RAW_JSON if form.name == "json" else RAW_MSGPACK)),
            lambda: [draw.choice(INTEGERS + FLOATS)] * draw.choice((1, 16, MANY)),
        ]
        return draw.choice(choices)()

    def _bytes(self, data: bytes, other: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 1, 2, 4, 16))):
            self._change_bytes(changed, other)
            if len(changed) > MOST_BYTES:
                break
        return bytes(changed)

    def _change_bytes(self, data: bytearray, other: bytes) -> None:
        draw = self._random
        at = draw.randrange(len(data) + 1)
        length = min(draw.choice((1, 2, 4, 8, 64, 1000)), len(data) - at)
        match draw.randrange(9):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 2 if at < len(data):
                data[at] = draw.choice((0, 1, 0x20, 0x7F, 0x80, 0xC0, 0xC1, 0xFF))
            case 3:
                del data[at:]
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = data[at : at + length] * draw.choice((1, 1, 4, 100))
            case 6:
                data[at:at] = draw.randbytes(draw.choice((1, 2, 4, 32)))
            case 7:
                start = draw.randrange(len(other) + 1)
                data[at : at + length] = other[start : start + draw.choice((1, 8, 64, 4096))]
            case _:
                mark = draw.choice([*MARKS, struct.pack("<I", draw.randrange(2**32))])
                data[at : at + len(mark)] = mark
