"""Feature definitions: read back as written, and refused where they cannot be computed exactly."""

import msgspec
import pytest

from edge_core.errors import InvalidBundle
from edge_core.features import definition as definitions
from edge_core.features.over_samples import Mean
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition

WINDOW = Window(samples=8, hop=4, max_gap_ms=100, rate_hz=50.0)
AX = SensorInput(name="ax", unit="g", lsb=0.25, low=-8.0, high=8.0)
MEAN = Mean(name="ax_mean", input="ax")
DEFINITION = WindowDefinition(inputs=[AX], window=WINDOW, features=[MEAN])


def test_what_is_written_is_read_back() -> None:
    data = definitions.serialize(DEFINITION)
    assert definitions.parse(data) == DEFINITION
    assert definitions.serialize(definitions.parse(data)) == data


def test_a_whole_number_is_written_as_the_real_one_that_it_stands_for() -> None:
    whole = msgspec.structs.replace(DEFINITION, inputs=[msgspec.structs.replace(AX, low=-8)])
    assert definitions.serialize(whole) == definitions.serialize(DEFINITION)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"features": [MEAN, MEAN]}, "two features have the same name"),
        ({"inputs": [AX, AX]}, "two inputs have the same name"),
        ({"features": [Mean(name="f", input="gone")]}, "unknown input gone"),
    ],
)
def test_contradictions_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        WindowDefinition(**({"inputs": [AX], "window": WINDOW, "features": [MEAN]} | changes))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("low", 8.0),
        ("low", float("nan")),
        ("low", float("-inf")),
        ("high", float("inf")),
        ("high", 2.0**61),
        ("lsb", 2.0**-40),
        ("lsb", float("inf")),
    ],
)
def test_a_range_that_integers_cannot_hold_names_its_channel(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="input ax: "):
        msgspec.structs.replace(AX, **{field: value})


def test_sums_that_would_overflow_are_refused_at_the_last_possible_value() -> None:
    def define(samples: int) -> WindowDefinition:
        entry = SensorInput(name="ax", unit="g", lsb=1.0, low=-(2.0**24 - 1), high=1.0)
        window = Window(samples=samples, hop=1, max_gap_ms=1, rate_hz=1.0)
        return WindowDefinition(inputs=[entry], window=window, features=[MEAN])

    assert define(181).window.samples == 181
    with pytest.raises(ValueError, match="overflow 64-bit sums"):
        define(182)


def test_a_hop_that_loses_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="hop"):
        Window(samples=8, hop=9, max_gap_ms=1, rate_hz=1.0)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b'"v": 2', b'"v": 3', "version 3"),
        (b'"op": "mean"', b'"op": "exec"', "not valid"),
        (b'"v": 2', b'"v": 2, "extra": 1', "extra"),
        (b"{", b"", "not valid"),
        (b'"low": -8.0', b'"low": 9.0', "low has to be below high"),
        (b'"name": "ax"', b'"name": "../ax"', "not valid"),
    ],
)
def test_a_damaged_file_is_an_invalid_bundle(old: bytes, new: bytes, named: str) -> None:
    data = definitions.serialize(DEFINITION)
    assert old in data
    with pytest.raises(InvalidBundle, match=named):
        definitions.parse(data.replace(old, new, 1))


def test_a_file_beyond_the_limit_is_refused_before_it_is_parsed() -> None:
    data = b" " * definitions.MAX_DEFINITION_BYTES + definitions.serialize(DEFINITION)
    with pytest.raises(InvalidBundle, match="the limit is"):
        definitions.parse(data)
