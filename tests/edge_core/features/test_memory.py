"""What a definition says its events take at most is more than what they take."""

import tracemalloc

import pytest

from edge_core.features.entities import Store, Value
from edge_core.features.over_time import DistinctWithin, MeanWithin, TimeOperation
from edge_core.features.requests import MAX_TEXT, Category, Keep, Number, Stream

START = 10**15
FIELDS = [
    Category(name="shop"),
    Category(name="kind"),
    Number(name="price", unit="EUR", lsb=1, low=0, high=10**6),
    Number(name="pieces", unit="1", lsb=1, low=0, high=10**6),
]


def features(means: int, kinds: int) -> list[TimeOperation]:
    fields = ("price", "pieces")
    return [
        *(
            MeanWithin(name=f"m{n}", stream="sales", field=fields[n % 2], within_s=1000 + n // 2)
            for n in range(means)
        ),
        *(
            DistinctWithin(name=f"k{n}", stream="sales", field="kind", within_s=1000 + n)
            for n in range(kinds)
        ),
    ]


@pytest.mark.parametrize(
    ("means", "kinds", "entities", "events"),
    [(1, 0, 5000, 1), (2, 0, 100, 200), (12, 0, 2000, 2), (1, 1, 100, 100), (0, 3, 50, 100)],
)
def test_memory_stays_below_its_bound(means: int, kinds: int, entities: int, events: int) -> None:
    keep = Keep(entities=entities, events=entities * events, events_per_entity=events)
    stream = Stream(name="sales", fields=FIELDS, keep=keep)
    read = features(means, kinds)
    bound = stream.memory_bytes(
        {feature.field for feature in read}, windows=means + kinds, distinct=kinds
    )
    tracemalloc.start()
    store = Store(stream, ("shop",), read)
    for entity in range(entities):
        key = (f"{entity:0{MAX_TEXT}}",)
        for event in range(events):
            found: dict[str, Value] = {
                "kind": f"{entity}-{event}".zfill(MAX_TEXT),
                "price": 10**5 + event,
                "pieces": 10**5 + event,
            }
            values = [found[name] for name in store.fields]
            store.add(key, (START + event, event), values, START + event)
        store.read(key, START + events)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert store.events == entities * events
    assert 0.2 * bound < taken < bound
