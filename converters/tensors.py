"""Named arrays that go into models and come out of them, and what is expected of them."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
"""Tensor name -> array [rows, ...]; every array has the same number of rows."""

DType = Literal["float32", "int32", "int64"]


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output of a model."""

    name: str
    shape: tuple[int, ...]
    """Without the batch: of one row."""
    dtype: DType = "float32"


def rows_of(feeds: Feeds) -> int:
    """How many rows; 0 where nothing is fed."""
    return min((len(array) for array in feeds.values()), default=0)


def take(feeds: Feeds, places: npt.ArrayLike) -> dict[str, Array]:
    """The rows at ``places``."""
    return {name: array[np.asarray(places)] for name, array in feeds.items()}


def digest(feeds: Feeds) -> str:
    """Sha256 over names, dtypes, shapes and little-endian bytes, in order of names."""
    found = hashlib.sha256()
    for name in sorted(feeds):
        array = np.ascontiguousarray(feeds[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        found.update(f"{name}\0{array.dtype.str}\0{array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def check(feeds: Feeds, specs: Iterable[TensorSpec], *, least_rows: int, what: str) -> None:
    """Refuse arrays that do not fit; ``what`` names their source in the refusal.

    Raises:
        InvalidInput: a name is missing or unknown, a dtype or shape differs, a value is not
            finite, rows differ in number or are too few.
    """
    wanted = {spec.name: spec for spec in specs}
    if missing := wanted.keys() - feeds.keys():
        raise InvalidInput(
            f"{what} lacks {', '.join(sorted(missing))}; the model takes "
            f"{', '.join(sorted(wanted))}"
        )
    if odd := feeds.keys() - wanted.keys():
        raise InvalidInput(
            f"{what} has {', '.join(sorted(odd))}; the model takes {', '.join(sorted(wanted))}"
        )
    for name, spec in wanted.items():
        _check_array(feeds[name], spec, f"{what}: {name}")
    counts = {len(array) for array in feeds.values()}
    if len(counts) > 1:
        raise InvalidInput(f"{what}: inputs have {sorted(counts)} rows; all need the same number")
    if rows_of(feeds) < least_rows:
        raise InvalidInput(f"{what} has {rows_of(feeds)} rows; at least {least_rows} are needed")


def _check_array(array: Array, spec: TensorSpec, what: str) -> None:
    if array.dtype.name != spec.dtype:
        raise InvalidInput(f"{what} is {array.dtype.name}; convert it to {spec.dtype}")
    if array.shape[1:] != spec.shape:
        raise InvalidInput(
            f"{what} has shape {list(array.shape)}; expected is [rows, "
            f"{', '.join(map(str, spec.shape))}]"
        )
    if spec.dtype == "float32" and not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0, 0]
        raise InvalidInput(f"{what} holds NaN or infinity, first in row {place}; leave it out")


def pack(feeds: Feeds) -> bytes:
    """The arrays as an uncompressed ``.npz``; equal arrays give equal bytes."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: feeds[name] for name in sorted(feeds)}
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def pack_places(arrays: Iterable[Array]) -> bytes:
    """Arrays named by their place: ``0``, ``1``, and so on."""
    return pack({str(place): array for place, array in enumerate(arrays)})


def unpack(data: bytes) -> dict[str, Array]:
    """The arrays that :func:`pack` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def unpack_places(data: bytes) -> list[Array]:
    """The arrays that :func:`pack_places` was given, or a worker has written so."""
    found = unpack(data)
    return [found[str(place)] for place in range(len(found))]
