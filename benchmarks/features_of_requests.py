"""What features of requests cost, beside pandas and river on the same flights.

All sides get the 336,776 requests and 655,000 events of flight_delay. The peers compute what they
offer: means and counts over time windows of an entity's events, without row operations; beside
them stand the same windows here. Figures are of one core.
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

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
from rich.console import Console
from rich.table import Table
from river import stats, utils

from converters import definition_source, recipe, recipe_code
from edge_core.features import columns
from edge_core.features.columns import Given
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
ASKED_EVERY = 25
"""Events of the long log to one request."""
EPOCH = datetime.datetime(1970, 1, 1)  # river compares naive times, in UTC here

Int64 = npt.NDArray[np.int64]
Windowed = MeanWithin | CountWithin


def flights() -> tuple[RequestDefinition, Log]:
    """The model's definition and the whole year's log."""
    definition = definition_source.load(FLIGHTS, "features.toml")
    assert isinstance(definition, RequestDefinition)
    chosen = recipe.load(FLIGHTS, None)
    return definition, recipe_code.log(FLIGHTS, chosen.entry)(chosen.settings).log


def at_once(definition: RequestDefinition, log: Log, repeats: int) -> float:
    """Requests a second of the fastest run: everything at once, as training does."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        rows = len(RequestEvaluator(definition).replay(*log))
        found.append(rows / (time.perf_counter() - started))
    return max(found)


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
            yield None, listed(columns.taken(log.request, place))
        else:
            *stamps, fields = log.events[name].only(place)
            yield name, Events(*(stamp.tolist() for stamp in stamps), listed(fields))


def listed(given: Given) -> dict[str, Any]:
    """Plain values, as a message brings them."""
    return {name: np.asarray(column).tolist() for name, column in given.items()}


def one_by_one(
    definition: RequestDefinition, given: list[Step], repeats: int
) -> tuple[float, float]:
    """Microseconds of a request, and of an event, each by itself as on a device."""
    return min(_one_by_one(RequestEvaluator(definition), given) for _ in range(repeats))


def _one_by_one(evaluator: RequestEvaluator, given: list[Step]) -> tuple[float, float]:
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
    """A small definition for long logs: a day's events have room, older ones expire."""
    return RequestDefinition(
        request=Request(fields=[Time(name="at"), Category(name="shop")], time="at"),
        streams=(
            Stream(
                name="sales",
                fields=[
                    Category(name="shop"),
                    Number(name="price", unit="EUR", lsb=0.01, low=0, high=1000),
                ],
                keep=Keep(entities=entities, events=2**20, events_per_entity=1024),
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


def memory_of(entities: int, events: int) -> tuple[int, int]:
    """Resident bytes after a tenth of a long log and after all of it."""
    definition = shops(entities)
    evaluator, draw = RequestEvaluator(definition), np.random.default_rng(0)
    process, early, step = psutil.Process(), 0, 200_000
    for begin in range(0, events, PIECE):
        count = min(PIECE, events - begin)
        times = (begin + np.arange(count)) * step
        shop = [f"s{number}" for number in draw.integers(0, entities, count).tolist()]
        fields = {"shop": shop, "price": draw.uniform(0, 100, count).astype(np.float32)}
        stamps = (times, np.arange(begin, begin + count), times)
        few = {"at": times[::ASKED_EVERY], "shop": shop[::ASKED_EVERY]}
        evaluator.replay({"sales": Events(*stamps, fields)}, few)
        del times, shop, fields, stamps, few
        gc.collect()
        if begin < events // 10:
            early = process.memory_info().rss
    return early, process.memory_info().rss


def line(
    figure: str,
    value: float,
    unit: str,
    peer: str = "",
    other: float | None = None,
    goal: float | None = None,
) -> dict[str, Any]:
    """One row of the report; a negative goal is an upper bound."""
    met = None if goal is None else value >= goal if goal > 0 else value <= -goal
    return {
        "figure": figure,
        "value": value,
        "unit": unit,
        "peer": None if other is None else {"name": peer, "value": other},
        "ratio": None if other is None else value / other,
        "goal": None if goal is None else f"{'>=' if goal > 0 else '<='} {abs(goal):,g}",
        "met": met,
    }


def shown(found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    value, peer, goal = found["value"], found["peer"], found["goal"]
    return [
        found["figure"],
        f"{value:,.0f} {found['unit']}" if value > 100 else f"{value:.3f}",
        f"{peer['name']}: {peer['value']:,.0f}" if peer else "",
        f"{found['ratio']:.2f}" if peer else "",
        f"{goal} {'met' if found['met'] else 'not met'}" if goal else "",
    ]


def pace() -> float:
    """Milliseconds of a fixed loop: how fast this machine is right now; 12 on a quiet core."""
    started, total = time.perf_counter(), 0
    for number in range(200_000):
        total += number * number % 7
    return (time.perf_counter() - started) * 1e3


def measure(requests: int, events: int, repeats: int) -> list[dict[str, Any]]:
    """All sides on the same log, in one process."""
    definition, log = flights()
    few = msgspec.structs.replace(definition, features=tuple(windowed(definition)))
    given = list(steps(log, requests))
    asked = sum(name is None for name, _ in given)
    whole = at_once(definition, log, repeats)
    windows = at_once(few, log, repeats)
    pandas = len(log.request["at"]) / with_pandas(definition, log)
    ask, observe = one_by_one(definition, given, repeats)
    ask_few, observe_few = one_by_one(few, given, repeats)
    small = ask_few * asked + observe_few * (len(given) - asked)
    river = 1e6 / with_river(definition, given)
    ours = 1e6 * asked / small
    early, late = memory_of(5000, events)
    columns = len(definition.feature_names)
    return [
        line(f"whole log, all {columns} columns", whole, "requests/s", goal=BATCH_GOAL),
        line(f"whole log, {len(few.features)} windows", windows, "requests/s", "pandas", pandas),
        line(f"one request, all {columns} columns", 1e6 / ask, "requests/s", goal=STREAM_GOAL),
        line(
            f"one request, {len(few.features)} windows",
            1e6 / ask_few,
            "requests/s",
            goal=STREAM_GOAL,
        ),
        line("one event", 1e6 / observe, "events/s"),
        line(f"one by one, {len(few.features)} windows", ours, "requests/s", "river", river),
        line(
            f"memory after {events:,} events, of that after a tenth", late / early, "", goal=-1.05
        ),
    ]


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000, help="taken one at a time")
    parser.add_argument("--events", type=int, default=10_000_000, help="of the long log")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    before = pace()
    rows = measure(options.requests, options.events, options.repeats)
    after = pace()
    table = Table("figure", "here", "peer", "times the peer", "goal", title="features of requests")
    for found in rows:
        table.add_row(*shown(found))
    Console().print(table)
    Console().print(
        f"a fixed loop took {before:.0f} ms before and {after:.0f} ms after; 12 is quiet"
    )
    conditions = {
        "loop_ms": [before, after],
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
