"""Logs of any length, written a piece at a time: sales and questions, and two sensors.

``python -m tests.simulators.history requests|calm|samples ROWS FOLDER`` writes one; a calm one has
no event that comes late or twice.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from edge_core.features import definition as definitions
from edge_core.features.over_rows import Hash, OneHot
from edge_core.features.over_samples import Count, Mean, Std
from edge_core.features.over_time import CountWithin, DistinctWithin, MeanWithin, TimeSince
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Category, Keep, Number, Request, Stream, Time
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition

SECOND_US = 1_000_000
BEGIN_US = 1_790_000_000 * SECOND_US
PIECE = 2**16
SHOPS = np.array([f"shop{number}" for number in range(40)])
STREAMS = np.array(["left", "right", "hip"])

REQUESTS = RequestDefinition(
    request=Request(
        fields=[
            Time(name="at"),
            Category(name="shop"),
            Number(name="amount", unit="EUR", lsb=0.01, low=0, high=1000, null_policy="keep"),
        ],
        time="at",
    ),
    streams=(
        Stream(
            name="sales",
            fields=[
                Category(name="shop"),
                Category(name="kind", null_policy="keep"),
                Number(name="price", unit="EUR", lsb=0.01, low=0, high=1000),
            ],
            keep=Keep(entities=64, events=20_000, events_per_entity=4000),
            max_ahead_s=1,
        ),
    ),
    features=(
        MeanWithin(
            name="price_1m",
            stream="sales",
            by={"shop": "shop"},
            field="price",
            within_s=60,
            default=0.0,
        ),
        DistinctWithin(
            name="kinds_1m",
            stream="sales",
            by={"shop": "shop"},
            field="kind",
            within_s=60,
            default=0.0,
        ),
        CountWithin(name="all_10s", stream="sales", within_s=10),
        TimeSince(name="idle", stream="sales", by={"shop": "shop"}, within_s=60, default=60.0),
        OneHot(name="is", input="shop", values=["shop1", "shop2"]),
        Hash(name="shop_code", input="shop", buckets=16),
    ),
)
WINDOWS = WindowDefinition(
    inputs=[
        SensorInput(name="ax", unit="g", lsb=2**-10, low=-8, high=8, null_policy="skip"),
        SensorInput(name="ay", unit="g", lsb=2**-10, low=-8, high=8),
    ],
    window=Window(samples=20, hop=10, max_gap_ms=400, rate_hz=50.0),
    features=[
        Mean(name="ax_mean", input="ax", default=-1.0),
        Count(name="ax_count", input="ax", default=0.0),
        Std(name="ay_std", input="ay"),
    ],
)


def definition_file(folder: Path, definition: RequestDefinition | WindowDefinition) -> Path:
    """Write a definition as bundles have it."""
    path = folder / "features.json"
    path.write_bytes(definitions.serialize(definition))
    return path


def write_requests(
    folder: Path, events: int, *, seed: int = 5, row_group: int = PIECE, odd: float = 0.0005
) -> Path:
    """A log with a question for every second sale, about 100 sales a second.

    Args:
        folder: of the log.
        events: how many sales.
        seed: of all chance.
        row_group: rows of a file's part.
        odd: share of sales from the future, of those that come too late, and of those told twice.
    """
    (folder / "events").mkdir(parents=True, exist_ok=True)
    moment = pa.timestamp("us", tz="UTC")
    sales = pa.schema(
        [
            ("event_time", moment),
            ("sequence", pa.int64()),
            ("arrival", moment),
            ("shop", pa.string()),
            ("kind", pa.string()),
            pa.field("price", pa.float32(), metadata={b"unit": b"EUR"}),
        ]
    )
    asked = pa.schema(
        [("at", moment), ("shop", pa.string()), ("amount", pa.float32()), ("id", pa.string())]
    )
    draw = np.random.default_rng(seed)
    arrived, at = BEGIN_US, BEGIN_US
    with (
        parquet.ParquetWriter(folder / "events/sales.parquet", sales) as out,
        parquet.ParquetWriter(folder / "requests.parquet", asked) as questions,
    ):
        for first in range(0, events, PIECE):
            rows = min(PIECE, events - first)
            came = arrived + np.cumsum(draw.integers(0, 20_001, rows))
            arrived = int(came[-1])
            times = came.copy()
            times[draw.random(rows) < odd] += 5 * SECOND_US
            times[draw.random(rows) < odd] -= 70 * SECOND_US
            numbers = np.arange(first, first + rows)
            again = draw.random(rows) < odd
            times[again], numbers[again] = np.roll(times, 1)[again], np.roll(numbers, 1)[again]
            shop = draw.choice(SHOPS, rows)
            shop[again] = np.roll(shop, 1)[again]
            kinds = draw.choice(np.array(["x", "y", "z", None], object), rows)
            prices = draw.uniform(0, 100, rows).astype(np.float32)
            columns = [times, numbers, came, shop, kinds, prices]
            out.write_table(_table(columns, sales), row_group)
            half = rows // 2
            asked_at = at + np.cumsum(draw.integers(0, 40_001, half))
            at = int(asked_at[-1]) if half else at
            amounts = np.where(draw.random(half) < 0.1, np.nan, 5).astype(np.float32)
            ids = [f"q{number}" for number in range(first // 2, first // 2 + half)]
            rest = [asked_at, draw.choice(SHOPS, half), amounts, ids]
            questions.write_table(_table(rest, asked), row_group)
    return folder


def write_samples(path: Path, samples: int, *, seed: int = 6, row_group: int = PIECE) -> Path:
    """A log of three streams by turns, with gaps, late and missing samples."""
    schema = pa.schema(
        [
            ("time_us", pa.int64()),
            ("stream", pa.string()),
            ("ax", pa.float32()),
            pa.field("ay", pa.float32(), metadata={b"unit": b"g"}),
        ]
    )
    draw = np.random.default_rng(seed)
    now = BEGIN_US
    with parquet.ParquetWriter(path, schema) as out:
        for first in range(0, samples, PIECE):
            rows = min(PIECE, samples - first)
            steps = draw.choice([7_000] * 997 + [0, -40_000, 600_000], rows)
            times = now + np.cumsum(steps)
            now = int(times[-1])
            values = draw.normal(0.5, 2, (rows, 2)).astype(np.float32)
            values[draw.random(rows) < 0.2, 0] = np.nan
            out.write_table(
                _table([times, draw.choice(STREAMS, rows), *values.T], schema), row_group
            )
    return path


def _table(columns: list[object], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


if __name__ == "__main__":
    kind, rows, target = sys.argv[1:]
    if kind in ("requests", "calm"):
        odd = 0.0 if kind == "calm" else 0.0005
        definition_file(write_requests(Path(target), int(rows), odd=odd), REQUESTS)
    else:
        Path(target).mkdir(parents=True, exist_ok=True)
        write_samples(Path(target) / "samples.parquet", int(rows))
        definition_file(Path(target), WINDOWS)
