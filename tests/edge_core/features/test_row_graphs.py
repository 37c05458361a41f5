"""Operations that build on one another in any way: one request has the bits of many."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidInput
from edge_core.features import few
from edge_core.features.over_rows import (
    Bucketise,
    Clip,
    Cyclic,
    DaysToHoliday,
    Difference,
    Field,
    Hash,
    Holiday,
    Join,
    Log1p,
    Lookup,
    Missing,
    OneHot,
    OneHotCode,
    OverRows,
    Ratio,
    Scale,
    TimePart,
)
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Number, Request, Time

from .test_few import ROWS, ZONE, columns
from .test_rows import define

FIELDS = [
    Time(name="at"),
    Time(name="seen", null_policy="keep"),
    Category(name="place", null_policy="keep"),
    Category(name="line", null_policy="keep"),
    Number(name="x", unit="m", lsb=0.25, low=-100, high=100, null_policy="keep"),
    Number(name="y", unit="m", lsb=2**-10, low=-100, high=100, null_policy="keep"),
]
REALS = st.sampled_from([-3.0, -1.0, -0.5, -0.0, 0.0, 0.1, 1.0, 2.5, 1e6])
DEFAULTS = st.none() | REALS
RANGES = st.tuples(REALS, REALS).filter(lambda pair: pair[0] < pair[1])
EDGES = st.lists(REALS, min_size=1, max_size=4, unique_by=float).map(sorted)


@st.composite
def graphs(draw: st.DrawFn) -> RequestDefinition:
    """Up to ten features, each of fields or of features before it."""
    numbers, texts, moments = ["x", "y"], ["place", "line"], ["at", "seen"]
    features: list[OverRows] = []
    for place in range(draw(st.integers(1, 10))):
        name = f"f{place}"
        number, other = draw(st.sampled_from(numbers)), draw(st.sampled_from(numbers))
        text, moment = draw(st.sampled_from(texts)), draw(st.sampled_from(moments))
        of: dict[str, Any] = {"name": name, "default": draw(DEFAULTS)}
        zone = draw(st.sampled_from([None, ZONE.name]))
        (low, high), edges = draw(RANGES), draw(EDGES)
        narrow: list[OverRows] = [
            Field(**of, input=number),
            Missing(**of, input=draw(st.sampled_from([number, text, moment]))),
            Scale(**of, input=number, offset=draw(REALS), factor=draw(REALS)),
            Log1p(**of, input=number),
            Clip(**of, input=number, low=low, high=high),
            Ratio(**of, input=number, over=other),
            Difference(**of, input=number, minus=other),
            Bucketise(**of, input=number, edges=edges),
            Hash(**of, input=text, buckets=7),
            Lookup(**of, input=text, table="heights"),
            TimePart(
                **of,
                input=moment,
                zone=zone,
                part=draw(st.sampled_from(["hour", "weekday", "month", "minute_of_day"])),
            ),
            Holiday(**of, input=moment, zone=zone, calendar="days_off"),
            DaysToHoliday(**of, input=moment, zone=zone, calendar="days_off", limit=9),
        ]
        wide: list[OverRows] = [
            OneHot(**of, input=text, values=["a", "b|north"]),
            OneHotCode(**of, input=number, codes=3),
            Cyclic(
                **of,
                input=moment,
                zone=zone,
                period=draw(st.sampled_from(["day", "week", "year"])),
            ),
        ]
        chosen = draw(st.sampled_from([*narrow, *wide, Join(name=name, inputs=[text, "line"])]))
        features.append(chosen)
        if isinstance(chosen, Join):
            texts.append(name)
        elif chosen not in wide:
            numbers.append(name)
    features.append(Missing(name="last", input="x"))
    return define(*features, request=Request(time="at", fields=FIELDS), zones=(ZONE,))


def asked(definition: RequestDefinition, request: dict[str, Any]) -> bytes | str:
    """The first request's inputs, or why it is refused."""
    try:
        return RequestEvaluator(definition).ask(request)[0].tobytes()
    except InvalidInput as error:
        return str(error)


@settings(max_examples=200, deadline=None)
@given(graphs(), ROWS, st.none() | st.integers(0, 2**50))
def test_one_request_has_the_bits_of_many(
    definition: RequestDefinition, row: tuple[Any, ...], seen: int | None
) -> None:
    alone = columns([row]) | {"seen": [seen]}
    many = {name: column * (few.MOST + 1) for name, column in alone.items()}
    assert asked(definition, alone) == asked(definition, many)
