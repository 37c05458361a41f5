"""What features of requests cost, beside pandas and river on the same flights.

All sides get 336,776 requests and 655,000 events of flight_delay. Here all features of the model
are computed: 75 columns, 17 of them over time windows of six keys. The peers compute those that
they offer: means and counts over time windows, without row operations. Figures are of one core.
"""

import argparse
import datetime
import gc
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
from rich.console import Console
from rich.table import Table
from river import stats, utils

from converters import definition_source, recipe, recipe_code
from edge_core.features import columns
from edge_core.features.logs import Events, Log
from edge_core.features.over_time import CountWithin, MeanWithin
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Keep, Number, Request, Stream, Time

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "bench"
FLIGHTS = ROOT / "firmware_bundles" / "flight_delay"
BATCH_GOAL, STREAM_GOAL = 200_000, 20_000
PIECE = 500_000
"""Events that are made at once."""
EPOCH = datetime.datetime(1970, 1, 1)  # river compares naive times, in UTC here

Int64 = npt.NDArray[np.int64]
Windowed = MeanWithin | CountWithin


def flights() -> tuple[RequestDefinition, Log]:
    """The model's definition and the whole year's log."""
    definition = definition_source.load(FLIGHTS / "features.toml")
    assert isinstance(definition, RequestDefinition)
    chosen = recipe.load(FLIGHTS, None)
    return definition, recipe_code.log(FLIGHTS, chosen.entry)(chosen.settings).log


def at_once(definition: RequestDefinition, log: Log) -> tuple[float, int]:
    """Seconds and requests: everything at once, as training does."""
    started = time.perf_counter()
    rows = len(RequestEvaluator(definition).replay(*log))
    return time.perf_counter() - started, rows


Step = tuple[str | None, Any]
"""A stream's name and its event, or none and a request."""


def steps(log: Log, requests: int) -> Iterator[Step]:
    """The log's first requests and the events before them, one by one in order of arrival."""
    asked = np.asarray(log.request["at"], np.int64)
    order = np.argsort(asked, kind="stable")[:requests]
    moments = [(int(asked[row]), 1, row, None) for row in order.tolist()]
    for name, events in log.events.items():
        arrived = np.asarray(events.arrived_us, np.int64)
        rows = np.flatnonzero(arrived <= asked[order[-1]])
        moments += [(int(arrived[row]), 0, row, name) for row in rows.tolist()]
    for _, _, row, name in sorted(moments, key=lambda moment: moment[:3]):
        place = np.array([row])
        if name is None:
            taken = columns.taken(log.request, place)
            yield None, {field: np.asarray(given).tolist() for field, given in taken.items()}
        else:
            yield name, log.events[name].only(place)


def one_by_one(definition: RequestDefinition, given: list[Step]) -> tuple[float, float]:
    """Microseconds of a request, and of an event, each by itself as on a device."""
    evaluator = RequestEvaluator(definition)
    spent = {True: 0.0, False: 0.0}
    clock = time.perf_counter
    for name, what in given:
        started = clock()
        if name is None:
            evaluator.ask(what)
        else:
            evaluator.observe(name, what)
        spent[name is None] += clock() - started
    asked = sum(name is None for name, _ in given)
    return spent[True] / asked * 1e6, spent[False] / (len(given) - asked) * 1e6


def windowed(definition: RequestDefinition) -> list[Windowed]:
    """The features that the peers have, too."""
    return [f for f in definition.features if isinstance(f, MeanWithin | CountWithin)]


def with_pandas(definition: RequestDefinition, log: Log) -> float:
    """Seconds: rolling time windows of a frame of events and requests, closed on the left."""
    frames = {}
    for name, events in log.events.items():
        frame = pd.DataFrame({**events.fields, "at": events.arrived_us, "asked": False})
        asked = pd.DataFrame({**log.request, "asked": True})
        joined = pd.concat([frame, asked]).sort_values("at", kind="stable")
        frames[name] = joined.set_index(pd.to_datetime(joined["at"], unit="us"))
    started = time.perf_counter()
    for feature in windowed(definition):
        frame = frames[feature.stream]
        field = feature.field if isinstance(feature, MeanWithin) else "late"
        groups = frame.groupby(list(feature.by))[field]
        rolling = groups.rolling(pd.Timedelta(seconds=feature.within_s), closed="left")
        _ = rolling.mean() if isinstance(feature, MeanWithin) else rolling.count()
    return time.perf_counter() - started


def rolling_of(feature: Windowed) -> dict[Any, Any]:
    """River's rolling statistic for each entity; it has no rolling count, so ones are added up."""
    kind = stats.Mean if isinstance(feature, MeanWithin) else stats.Sum
    period = datetime.timedelta(seconds=feature.within_s)
    return defaultdict(lambda: utils.TimeRolling(kind, period=period))


def with_river(definition: RequestDefinition, given: list[Step]) -> float:
    """Microseconds of a request with its events: rolling statistics of each entity."""
    features = windowed(definition)
    held: list[dict[Any, Any]] = [rolling_of(feature) for feature in features]
    started, asked = time.perf_counter(), 0
    for name, what in given:
        if name is None:
            asked += 1
            for feature, rolling in zip(features, held, strict=True):
                rolling[tuple(what[mine][0] for mine in feature.by.values())].get()
            continue
        moment = EPOCH + datetime.timedelta(microseconds=int(what.arrived_us[0]))
        for feature, rolling in zip(features, held, strict=True):
            if feature.stream != name:
                continue
            entity = rolling[tuple(what.fields[theirs][0] for theirs in feature.by)]
            value = what.fields[feature.field][0] if isinstance(feature, MeanWithin) else 1.0
            entity.update(float(value), t=moment)
    return (time.perf_counter() - started) / asked * 1e6


def shops(entities: int) -> RequestDefinition:
    """A small definition for long logs."""
    return RequestDefinition(
        request=Request(fields=[Time(name="at"), Category(name="shop")], time="at"),
        streams=(
            Stream(
                name="sales",
                fields=[
                    Category(name="shop"),
                    Number(name="price", unit="EUR", lsb=0.01, low=0, high=1000),
                ],
                keep=Keep(entities=entities, events=4 * entities, events_per_entity=64),
            ),
        ),
        features=(
            CountWithin(name="sales_1h", stream="sales", by={"shop": "shop"}, within_s=3600),
            MeanWithin(
                name="price_1d",
                stream="sales",
                by={"shop": "shop"},
                field="price",
                within_s=86400,
                default=0,
            ),
        ),
        memory_bytes=2**40,
    )


def memory_of(entities: int, events: int) -> tuple[int, int, dict[str, int]]:
    """Resident bytes after a tenth of a long log and after all of it, and what was dropped."""
    definition = shops(entities)
    evaluator, draw, process = (
        RequestEvaluator(definition),
        np.random.default_rng(0),
        psutil.Process(),
    )
    early, step = 0, 20_000
    for begin in range(0, events, PIECE):
        count = min(PIECE, events - begin)
        times = (begin + np.arange(count)) * step
        shop = [f"s{number}" for number in draw.integers(0, 3 * entities, count).tolist()]
        fields = {"shop": shop, "price": draw.uniform(0, 100, count).astype(np.float32)}
        stamps = (times, np.arange(begin, begin + count), times)
        few = {"at": times[-1000:], "shop": shop[-1000:]}
        evaluator.replay({"sales": Events(*stamps, fields)}, few)
        del times, shop, fields, stamps, few
        gc.collect()
        if begin < events // 10:
            early = process.memory_info().rss
    (dropped,) = evaluator.dropped.values()
    return (
        early,
        process.memory_info().rss,
        {"evicted": dropped.evicted, "overflow": dropped.overflow},
    )


def line(
    figure: str,
    value: float,
    unit: str,
    peer: str = "",
    ratio: float | None = None,
    goal: str = "",
    met: bool | None = None,
) -> dict[str, Any]:
    """One row of the report."""
    return {
        "figure": figure,
        "value": value,
        "unit": unit,
        "peer": peer,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }


def measure(requests: int, events: int, repeats: int) -> list[dict[str, Any]]:
    """All sides on the same log, in one process."""
    definition, log = flights()
    seconds, rows = min(at_once(definition, log) for _ in range(repeats))
    given = list(steps(log, requests))
    ask, observe = min(one_by_one(definition, given) for _ in range(repeats))
    asked = sum(name is None for name, _ in given)
    ours = ask + observe * (len(given) - asked) / asked
    pandas = with_pandas(definition, log)
    river = with_river(definition, given)
    early, late, dropped = memory_of(5000, events)
    return [
        line(
            "a whole log at once",
            rows / seconds,
            "requests/s",
            f"pandas: {rows / pandas:,.0f}",
            pandas / seconds,
            f">= {BATCH_GOAL:,}",
            rows / seconds >= BATCH_GOAL,
        ),
        line(
            "one request at a time",
            1e6 / ask,
            "requests/s",
            "",
            None,
            f">= {STREAM_GOAL:,}",
            1e6 / ask >= STREAM_GOAL,
        ),
        line("one event at a time", 1e6 / observe, "events/s"),
        line(
            "requests with their events, one at a time",
            1e6 / ours,
            "requests/s",
            f"river: {1e6 / river:,.0f}",
            river / ours,
        ),
        line(
            f"memory after {events:,} events",
            late / early,
            "of that after a tenth",
            f"{dropped['evicted']:,} events evicted",
            None,
            "<= 1.05",
            late / early <= 1.05,
        ),
    ]


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000, help="taken one at a time")
    parser.add_argument("--events", type=int, default=10_000_000, help="of the long log")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows = measure(options.requests, options.events, options.repeats)
    table = Table("figure", "here", "peer", "times the peer", "goal", title="features of requests")
    for found in rows:
        table.add_row(
            found["figure"],
            f"{found['value']:,.2f} {found['unit']}"
            if found["value"] < 100
            else f"{found['value']:,.0f} {found['unit']}",
            found["peer"],
            "" if found["ratio"] is None else f"{found['ratio']:.1f}",
            f"{found['goal']} {'met' if found['met'] else 'not met'}" if found["goal"] else "",
        )
    Console().print(table)
    conditions = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "requests one at a time": options.requests,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    content = {"name": "features_of_requests", "conditions": conditions, "rows": rows}
    (OUT / "features_of_requests.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
