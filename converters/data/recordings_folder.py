"""Labelled recordings on disk: one table of recordings, one of all their samples in order."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.data import tables
from converters.data.dataset import LabelledRecording
from edge_core.errors import InvalidInput
from edge_core.features.requests import Category, FieldType, Number, Time
from edge_core.features.sensors import SensorInput

RECORDINGS, SAMPLES = "recordings", "samples"
ENTITY, LABEL, ROLE, SLICE, LENGTH = "_entity", "_label", "_role", "_slice_", "_samples"
"""No channel's name begins with an underscore."""
NUMBER = "_recording"
COUNT = Time(name=LENGTH)
"""No moment, but read as one: as int64."""


def write(
    folder: Path,
    inputs: Sequence[SensorInput],
    slices: Sequence[str],
    recordings: Iterable[LabelledRecording],
) -> None:
    """Write recordings as Parquet.

    Raises:
        InvalidInput: samples of another shape, or a recording without a declared slice.
    """
    import pyarrow as pa

    given = list(recordings)
    for one in given:
        if one.samples.ndim != 2 or one.samples.shape[1] != len(inputs):
            raise InvalidInput(
                f"{one.entity}: samples have the shape {list(one.samples.shape)}; needed is "
                f"[samples, {len(inputs)}]: {', '.join(entry.name for entry in inputs)}"
            )
    lengths = np.array([len(one.samples) for one in given], np.int64)
    described: dict[str, Any] = {
        ENTITY: pa.array([one.entity for one in given], pa.string()),
        LABEL: pa.array([one.label for one in given], pa.string()),
        ROLE: pa.array([one.role for one in given], pa.string()),
        LENGTH: pa.array(lengths, pa.int64()),
    }
    for name in slices:
        described[f"{SLICE}{name}"] = pa.array([one.slices[name] for one in given], pa.string())
    tables.write(folder / f"{RECORDINGS}.parquet", pa.table(described))
    samples = [np.empty((0, len(inputs)), np.float32), *(one.samples for one in given)]
    whole = np.concatenate([np.asarray(part, np.float32) for part in samples])
    fields = [pa.field(NUMBER, pa.int64())]
    arrays = [pa.array(np.repeat(np.arange(len(given)), lengths))]
    for place, entry in enumerate(inputs):
        unit = {tables.UNIT: entry.unit.encode()}
        fields.append(pa.field(entry.name, pa.float32(), metadata=unit))
        arrays.append(pa.array(np.ascontiguousarray(whole[:, place])))
    tables.write(
        folder / f"{SAMPLES}.parquet", pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    )


def read(
    folder: Path, inputs: Sequence[SensorInput], slices: Sequence[str]
) -> Iterator[LabelledRecording]:
    """Read recordings in the order in which they were written.

    Raises:
        InvalidInput: damaged, or a channel or slice is missing or in another unit.
    """
    texts = [ENTITY, LABEL, ROLE, *(f"{SLICE}{name}" for name in slices)]
    described: list[FieldType] = [Category(name=name) for name in texts]
    rows = _whole(tables.Table(folder / f"{RECORDINGS}.parquet", [*described, COUNT]))
    channels: list[FieldType] = [
        Number(name=one.name, unit=one.unit, lsb=one.lsb, low=one.low, high=one.high)
        for one in inputs
    ]
    columns = _whole(tables.Table(folder / f"{SAMPLES}.parquet", channels))
    samples = np.stack([columns[one.name] for one in inputs], axis=1)
    ends = np.cumsum(np.asarray(rows[LENGTH], np.int64))
    if (int(ends[-1]) if len(ends) else 0) != len(samples):
        raise InvalidInput(f"{folder}: {RECORDINGS} and {SAMPLES} do not belong together")
    for place, part in enumerate(np.split(samples, ends[:-1]) if len(ends) else []):
        yield LabelledRecording(
            samples=part,
            label=str(rows[LABEL][place]),
            entity=str(rows[ENTITY][place]),
            role=rows[ROLE][place],  # checked with the labels
            slices={name: str(rows[f"{SLICE}{name}"][place]) for name in slices},
        )


def _whole(table: tables.Table) -> dict[str, Any]:
    parts = [table.columns(batch) for batch in table.pieces()]
    return {
        name: np.concatenate([np.empty(0, np.float32), *(np.asarray(part[name]) for part in parts)])
        if isinstance(field, Number)
        else [value for part in parts for value in part[name]]
        for name, field in table.fields.items()
    }
