"""A definition as TOML, JSON or Python is the same; what is wrong with it names the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from converters import definition_source
from edge_core.errors import InvalidBundle, InvalidConfiguration
from edge_core.features import definition as definitions
from edge_core.features.definition import of_requests

TOML = """
v = 2

[request]
time = "at"
fields = [
    { dtype = "time", name = "at" },
    { dtype = "category", name = "shop" },
    { dtype = "number", name = "size", unit = "m", lsb = 1, low = 0, high = 9 },
]

[[streams]]
name = "sales"
fields = [{ dtype = "category", name = "shop" }]

[[zones]]
name = "Europe/Berlin"
first_year = 2024
last_year = 2024

[[calendars]]
name = "days_off"
dates = [2024-05-01]

[[features]]
op = "count"
name = "sales_1h"
stream = "sales"
by = { shop = "shop" }
within_s = 3600

[[features]]
op = "field"
name = "sized"
input = "size"
default = -1
"""
PYTHON = '''
"""The features of a shop's sales."""

import datetime

from converters.zones import zone
from edge_core.features.carried import Calendar
from edge_core.features.over_rows import Field
from edge_core.features.over_time import CountWithin
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Category, Number, Request, Stream, Time

HOURS = (1,)


def definition() -> RequestDefinition:
    """Counts of several spans are quicker written by a loop."""
    return RequestDefinition(
        request=Request(
            time="at",
            fields=[
                Time(name="at"),
                Category(name="shop"),
                Number(name="size", unit="m", lsb=1, low=0, high=9),
            ],
        ),
        streams=(Stream(name="sales", fields=[Category(name="shop")]),),
        zones=(zone("Europe/Berlin", 2024, 2024),),
        calendars=(Calendar(name="days_off", dates=[datetime.date(2024, 5, 1)]),),
        features=(
            *(
                CountWithin(
                    name=f"sales_{hours}h",
                    stream="sales",
                    by={"shop": "shop"},
                    within_s=3600 * hours,
                )
                for hours in HOURS
            ),
            Field(name="sized", input="size", default=-1),
        ),
    )
'''
FUNCTION = "features:definition"


def test_toml_json_and_python_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "features.toml").write_text(TOML)
    (tmp_path / "features.py").write_text(PYTHON)
    made = definition_source.load(tmp_path, "features.toml")
    assert definition_source.load(tmp_path, FUNCTION) == made
    data = definitions.serialize(made)
    (tmp_path / "features.json").write_bytes(data)
    assert definition_source.load(tmp_path, "features.json") == made
    assert definitions.serialize(definition_source.load(tmp_path, FUNCTION)) == data
    assert [len(zone.transitions) for zone in of_requests(made).zones] == [2]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("default = -1", "default = nan", "feature sized: Expected `float` >="),
        ("default = -1", "default = inf", "feature sized: Expected `float` <="),
        ("within_s = 3600", "within_s = nan", "feature sales_1h: Expected `float` >="),
        ("lsb = 1", "lsb = nan", "field size: Expected `float` > 0"),
        ("lsb = 1", "lsb = inf", "field size: the range or lsb exceeds"),
        ("low = 0", "low = -inf", "field size: the range or lsb exceeds"),
        ('unit = "m"', "unit = 3", "field size: Expected `str`"),
        ('op = "field"', 'op = "median"', "feature sized: Invalid value 'median'.*known are"),
        ('name = "sales"\n', 'name = "sales"\nmax_ahead_s = inf\n', "stream sales: Expected"),
        ("first_year = 2024", 'first_year = "x"', "zone Europe/Berlin: Expected `int`"),
        ("first_year = 2024", "", "zone Europe/Berlin: .* needs name, first_year and last_year"),
        ("first_year = 2024", "first_year = 2025", "the first one first"),
        ("Europe/Berlin", "Mars/Base", "no time zone Mars/Base"),
        ("[[zones]]", "[zones]", "Expected `array`, got `object`"),
        ("2024-05-01", '"May"', "calendar days_off: "),
        ("v = 2", "v = 2\nv = 3", "not valid TOML"),
        ("v = 2", "v = = 2", "not valid TOML"),
        ("[request]", "[[request]]", "Expected `object`, got `array`"),
    ],
)
def test_what_is_wrong_in_toml_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in TOML
    (tmp_path / "features.toml").write_text(TOML.replace(old, new, 1))
    with pytest.raises(InvalidConfiguration, match=named) as refused:
        definition_source.load(tmp_path, "features.toml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("default=-1", "default=float('nan')", "feature sized: Expected `float` >="),
        ("within_s=3600 * hours", "within_s=0", "feature sales_1h: Expected `float` >="),
        ('name="sized"', 'name="Sized"', "feature Sized: .*regex"),
        ('by={"shop": "shop"}', 'by={"gone": "shop"}', "feature sales_1h: sales has no category"),
        ("low=0", "low=10", "field size: low has to be below high"),
        ("within_s", "within_m", "within_m"),
        ("return RequestDefinition(", "return dict(", "returns a dict; a WindowDefinition or"),
        ("def definition", "def features", "features.py has no function definition"),
        ("import CountWithin", "import Median", "cannot be imported"),
        ("HOURS = (1,)", "HOURS = (", "cannot be imported"),
        ('"Europe/Berlin"', '"Mars/Base"', "no time zone Mars/Base"),
    ],
)
def test_what_is_wrong_in_python_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in PYTHON
    (tmp_path / "features.py").write_text(PYTHON.replace(old, new, 1))
    with pytest.raises(InvalidConfiguration, match=named) as refused:
        definition_source.load(tmp_path, FUNCTION)
    assert "\n" not in str(refused.value)


def test_a_missing_file_or_module_is_named(tmp_path: Path) -> None:
    for source, named in (("features.toml", "has no features.toml"), (FUNCTION, "cannot be")):
        with pytest.raises(InvalidConfiguration, match=named):
            definition_source.load(tmp_path, source)


def test_a_definition_that_grows_beyond_the_limit_when_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "features.toml").write_text(TOML)
    given: Any = json.loads(
        definitions.serialize(definition_source.load(tmp_path, "features.toml"))
    )
    given["tables"] = [{"name": "large", "values": {f"key {n}": 0.5 for n in range(54_000)}}]
    data = json.dumps(given, separators=(",", ":")).encode()
    assert len(data) < definitions.MAX_DEFINITION_BYTES
    (tmp_path / "features.json").write_bytes(data)
    with pytest.raises(InvalidBundle, match="the limit is"):
        definition_source.load(tmp_path, "features.json")
