"""Training and devices compute the same bits of requests; every way in which not is noticed."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from converters.cli import app
from converters.data import log_folder
from converters.refusal import RefusedByGate
from converters.replay import requests as replaying_requests
from converters.replay.replayed import Replayed
from edge_core.bundle import golden as goldens
from edge_core.errors import InvalidInput
from edge_core.features import batches, playback
from edge_core.features import definition as definitions
from edge_core.features.agreement import Float32
from edge_core.features.columns import Given
from edge_core.features.entities import MISSING, Key, Stamp, Store
from edge_core.features.logs import Events, Log
from edge_core.features.over_rows import OfTime
from edge_core.features.over_time import MeanWithin, OfField, OverTime, SumWithin
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import Grouped, RequestEvaluator

from .parity_case import BERLIN, DEFINITION, SECOND, log

NAMES = DEFINITION.feature_names
SEEN = {"count", "sum", "mean", "last", "since", "kinds", "all", "busier"}
TOLLS = {name for name in NAMES if name.startswith("tolls_")} | {"busier"}
CLOCKS = {"hour", "day_sin", "day_cos"}
Changes = Callable[[Any], dict[str, Any]]


class Fault(RequestEvaluator):
    """An evaluator with one deliberate fault, whichever side it is on."""

    store: type[Store] = Store

    def __init__(self, definition: RequestDefinition) -> None:
        self._told = definition
        super().__init__(self.changed(definition))
        self.definition = definition

    def _empty_stores(self) -> list[Grouped]:
        # Also where it goes on from a snapshot, by then under the definition that it was told.
        own, self.definition = self.definition, self.changed(self._told)
        stores = super()._empty_stores()
        self.definition = own
        for grouped in stores:
            grouped.store.__class__ = self.store
        return stores

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        """The definition as the fault reads it."""
        return definition

    def replay(self, events: Mapping[str, Events], request: Given) -> Float32:
        """As training, with the same fault."""
        return playback.play(self.definition, Log(events, request), opened=type(self)).features


def changed(
    definition: RequestDefinition, kind: type | tuple[type, ...], changes: Changes
) -> RequestDefinition:
    """The definition with changes to features of a kind."""
    features = tuple(
        msgspec.structs.replace(feature, **changes(feature))
        if isinstance(feature, kind)
        else feature
        for feature in definition.features
    )
    return msgspec.structs.replace(definition, features=features)


class StartsLater(Fault):
    """A window without the event at its start."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        return changed(definition, OverTime, lambda f: {"within_s": f.within_s - 1e-6})


class StartsEarlier(Fault):
    """A window with the event before its start."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        return changed(definition, OverTime, lambda f: {"within_s": f.within_s + 1e-6})


class LaterStore(Store):
    def read(self, key: Key, now_us: int) -> list[float | None]:
        return super().read(key, now_us + 1)


class WithCurrent(StartsEarlier):
    """A window with the current event in it."""

    store = LaterStore


class EarlierStore(Store):
    def read(self, key: Key, now_us: int) -> list[float | None]:
        return super().read(key, now_us - 1)


class EndsEarlier(StartsLater):
    """A window without the last event."""

    store = EarlierStore


class WrongFill(Fault):
    """Zero stands for what cannot be had, not the declared default."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        def to_zero(feature: Any) -> dict[str, Any]:
            return {} if feature.default is None else {"default": 0.0}

        return changed(definition, object, to_zero)


class LocalTime(Fault):
    """Local time where none was asked for."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        return changed(definition, OfTime, lambda f: {"zone": BERLIN})


class UtcTime(Fault):
    """UTC where local time was asked for."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        return changed(definition, OfTime, lambda f: {"zone": None})


class FixedOffset(Fault):
    """Clocks never change."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        (zone,) = definition.zones
        return msgspec.structs.replace(
            definition, zones=(msgspec.structs.replace(zone, transitions=()),)
        )


class ChangedAnHourLate(Fault):
    """Moments of transitions are read as local time."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        (zone,) = definition.zones
        moved = tuple((moment + 3600, offset) for moment, offset in zone.transitions)
        return msgspec.structs.replace(
            definition, zones=(msgspec.structs.replace(zone, transitions=moved),)
        )


class FloatStore(Store):
    def read(self, key: Key, now_us: int) -> list[float | None]:
        found = list(super().read(key, now_us))
        for place, (feature, lsb) in enumerate(self.features):
            if isinstance(feature, SumWithin | MeanWithin) and found[place] is not None:
                wanted = feature.within_us, self.fields.index(feature.field)
                (window,) = (
                    span
                    for span, within in zip(self.held[key].spans, self.within_us, strict=True)
                    if (within, span.field) == wanted
                )
                held = np.array(self.held[key].held(window)[window.start : window.end])
                values = (held[held != MISSING] * lsb).astype(np.float32)
                total = np.add.accumulate(values, dtype=np.float32)[-1]
                found[place] = float(
                    total / len(values) if isinstance(feature, MeanWithin) else total
                )
        return found


class FloatSums(Fault):
    """Sums of float32, one event after the other."""

    store = FloatStore


class ArrivalOrder(Fault):
    """An event counts from when it came."""

    def observe(self, stream: str, events: Events) -> Any:
        return super().observe(stream, events._replace(times_us=events.arrived_us))


class LocalEvents(Fault):
    """Events' times are taken for local ones."""

    def observe(self, stream: str, events: Events) -> Any:
        times = np.asarray(events.times_us) - 3600 * SECOND
        return super().observe(stream, events._replace(times_us=times))


class TwiceStore(Store):
    def add(self, key: Key, stamp: Stamp, values: Any, arrived_us: int) -> Any:
        again = stamp
        while (entity := self.held.get(key)) is not None and again in zip(
            entity.times, entity.sequence, strict=True
        ):
            again = (again[0], again[1] + 10**6)
        return super().add(key, again, values, arrived_us)


class CountsTwice(Fault):
    """An event that comes twice is two events."""

    store = TwiceStore


class LastWins(Fault):
    """Of an event that comes twice, the second one holds."""

    class Overwriting(Store):
        def add(self, key: Key, stamp: Stamp, values: Any, arrived_us: int) -> Any:
            entity = self.held.get(key)
            stamps = list(zip(entity.times, entity.sequence, strict=True)) if entity else []
            if entity is not None and stamp in stamps:
                for held, value in zip(entity.fields, values, strict=True):
                    held[stamps.index(stamp)] = value
                for span in entity.spans:
                    span.clear()
            return super().add(key, stamp, values, arrived_us)

    store = Overwriting


class NoLateStore(Store):
    def add(self, key: Key, stamp: Stamp, values: Any, arrived_us: int) -> Any:
        entity = self.held.get(key)
        if entity is not None and entity.times and stamp[0] < entity.times[-1]:
            return "duplicate"
        return super().add(key, stamp, values, arrived_us)


class DropsLate(Fault):
    """An event that comes after a newer one is dropped."""

    store = NoLateStore


class AppendsLate(Fault):
    """A late event goes to the end, not to its place."""

    class Appending(Store):
        def add(self, key: Key, stamp: Stamp, values: Any, arrived_us: int) -> Any:
            entity = self.held.get(key)
            if entity is not None and entity.times and stamp[0] < entity.times[-1]:
                stamp = (entity.times[-1], entity.sequence[-1] + stamp[1] + 1)
            return super().add(key, stamp, values, arrived_us)

    store = Appending


class ZeroStore(Store):
    def add(self, key: Key, stamp: Stamp, values: Any, arrived_us: int) -> Any:
        filled = [0 if value == MISSING else value or "" for value in values]
        return super().add(key, stamp, filled, arrived_us)


class MissingIsZero(Fault):
    """A missing value counts as a zero or an empty text."""

    store = ZeroStore


class TakesAhead(Fault):
    """Events from far ahead are kept until their time comes."""

    class Patient(Store):
        def add(self, key: Key, stamp: Stamp, values: Any, arrived_us: int) -> Any:
            return super().add(key, stamp, values, max(arrived_us, stamp[0]))

    store = Patient


class EvictsNewest(Fault):
    """The entity that was used most recently goes first."""

    class Hasty(Store):
        def _evict(self) -> None:
            while len(self.held) > self.keep.entities:
                _, entity = self.held.popitem(last=True)
                self.events -= len(entity.times)

    store = Hasty


class EvictsEldest(Fault):
    """A request is no use of an entity."""

    class Blind(Store):
        def read(self, key: Key, now_us: int) -> list[float | None]:
            order = list(self.held)
            found = super().read(key, now_us)
            for name in order:
                self.held.move_to_end(name)
            return found

    store = Blind


class NeverFull(Fault):
    """An entity keeps more events than it may."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        seen, tolls = definition.streams
        keep = msgspec.structs.replace(seen.keep, events_per_entity=1000)
        seen = msgspec.structs.replace(seen, keep=keep)
        return msgspec.structs.replace(definition, streams=(seen, tolls))


class FewAreEnough(Fault):
    """One value is enough where more are asked for."""

    def changed(self, definition: RequestDefinition) -> RequestDefinition:
        return changed(definition, OfField, lambda f: {"min_count": 1})


class MovedBucket(Fault):
    """The bucket of unknown values stands first."""

    def ask(self, request: Given) -> Float32:
        found = super().ask(request)
        first = NAMES.index("at_place=a")
        found[:, first : first + 4] = np.roll(found[:, first : first + 4], 1, axis=1)
        return found


class NoBucket(Fault):
    """Unknown values are nothing."""

    def ask(self, request: Given) -> Float32:
        found = super().ask(request)
        found[:, NAMES.index("at_place=other")] = 0
        return found


class OtherHash(Fault):
    """Texts are hashed with another seed."""

    def ask(self, request: Given) -> Float32:
        with mock.patch.object(hashlib, "blake2b", partial(hashlib.blake2b, key=b"1")):
            return super().ask(request)


class CutsSteps(Fault):
    """Values are cut to multiples of lsb, not rounded."""

    def observe(self, stream: str, events: Events) -> Any:
        value = np.floor(np.asarray(events.fields["value"]) * 1024) / 1024
        return super().observe(stream, events._replace(fields={**events.fields, "value": value}))

    def ask(self, request: Given) -> Float32:
        return super().ask({**request, "size": np.floor(np.asarray(request["size"]) * 2) / 2})


class Forgetful(Fault):
    """A restart loses what was remembered."""

    def snapshot(self) -> bytes:
        return RequestEvaluator(self.definition).snapshot()


class ForgetsSequence(Fault):
    """A restart loses sequence numbers, so that events come twice after it."""

    def snapshot(self) -> bytes:
        for grouped in self._stores:
            for entity in grouped.store.held.values():
                for place in range(len(entity.sequence)):
                    entity.sequence[place] = place - 10**6
        return super().snapshot()


class ForgetsUse(Fault):
    """A restart loses the order in which entities were used."""

    def snapshot(self) -> bytes:
        for grouped in self._stores:
            for key in sorted(grouped.store.held):
                grouped.store.held.move_to_end(key)
        return super().snapshot()


class NoAsOf(Fault):
    """Training knows each event when it happens, before it came."""

    def replay(self, events: Mapping[str, Events], request: Given) -> Float32:
        known = {
            name: given._replace(
                arrived_us=np.minimum(np.asarray(given.arrived_us), np.asarray(given.times_us))
            )
            for name, given in events.items()
        }
        return RequestEvaluator(self.definition).replay(known, request)


WITH_DEFAULT = {
    name
    for name in NAMES
    if name in (SEEN | TOLLS) - {"count", "all", "tolls_count", "busier"}
    or name in ("height", "size_log")
}
FAULTS: dict[type[Fault], set[str]] = {
    StartsLater: SEEN | TOLLS,
    StartsEarlier: SEEN | TOLLS,
    WithCurrent: SEEN | TOLLS,
    EndsEarlier: SEEN | TOLLS,
    WrongFill: WITH_DEFAULT,
    LocalTime: {"utc_hour"},
    UtcTime: CLOCKS | {"off"},
    FixedOffset: CLOCKS,
    ChangedAnHourLate: CLOCKS,
    FloatSums: {"sum", "mean", "tolls_sum", "tolls_mean"},
    ArrivalOrder: SEEN | TOLLS,
    LocalEvents: SEEN | TOLLS,
    CountsTwice: SEEN - {"since"},
    LastWins: {"sum", "mean", "last", "kinds"},
    DropsLate: SEEN - {"since"},
    AppendsLate: SEEN - {"since"},
    MissingIsZero: {"sum", "mean", "last", "kinds", "tolls_sum", "tolls_mean", "tolls_last"},
    TakesAhead: SEEN,
    EvictsNewest: SEEN - {"all"},
    EvictsEldest: SEEN - {"all", "mean"},
    NeverFull: {"count", "sum", "kinds", "all", "busier"},
    FewAreEnough: {"mean", "tolls_mean"},
    MovedBucket: {"at_place=a", "at_place=b", "at_place=c", "at_place=other"},
    NoBucket: {"at_place=other"},
    OtherHash: {"where_code"},
    CutsSteps: {"sum", "mean", "last", "tolls_sum", "tolls_mean", "tolls_last", "size_log"},
}
OF_DEVICES = {
    Forgetful: SEEN | TOLLS,
    ForgetsSequence: {"count", "sum", "mean", "all", "busier"},
    ForgetsUse: SEEN - {"all"},
}
"""Training never starts again."""
OF_TRAINING = {NoAsOf: SEEN | TOLLS}
"""A device cannot know what has not come."""


def named(found: Replayed) -> set[str]:
    return {feature.feature for feature in found.features if feature.mismatched}


@pytest.fixture(scope="module")
def honest() -> Replayed:
    return replaying_requests.replay(DEFINITION, log())


def test_training_and_devices_agree(honest: Replayed) -> None:
    assert honest.holds
    assert honest.rows == len(log().request["at"])
    assert all(feature.compared == honest.rows for feature in honest.features)


def test_the_log_has_every_case(honest: Replayed) -> None:
    assert [name for name, times in honest.exercised.items() if not times] == []
    assert honest.constant == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("side", ["training", "serving"])
def test_every_fault_is_caught_and_its_features_are_named(fault: type[Fault], side: str) -> None:
    found = replaying_requests.replay(DEFINITION, log(), **{side: fault})
    assert not found.holds
    assert named(found) == FAULTS[fault]


@pytest.mark.parametrize("fault", OF_DEVICES, ids=lambda fault: fault.__name__)
def test_what_a_restart_loses_is_caught(fault: type[Fault]) -> None:
    found = replaying_requests.replay(DEFINITION, log(), serving=fault)
    assert named(found) == OF_DEVICES[fault]


@pytest.mark.parametrize("fault", OF_TRAINING, ids=lambda fault: fault.__name__)
def test_what_training_knows_too_early_is_caught(fault: type[Fault]) -> None:
    found = replaying_requests.replay(DEFINITION, log(), training=fault)
    assert named(found) == OF_TRAINING[fault]


def _no_as_of(real: Any, self: Any, past: Any, asked: Any, *given: int) -> None:
    real(self, past, asked, *given)
    self._end = np.maximum(self._before(asked.times_us), self._first)


def _float_sums(real: Any, values: Any, start: Any, end: Any) -> Any:
    if values.dtype == np.bool_:
        return real(values, start, end)
    total = np.concatenate([[0], np.cumsum(values, dtype=np.float32)]).astype(np.float64)
    return total[end] - total[start]


AT_ONCE: dict[str, tuple[str, Any, set[str]]] = {
    "starts later": ("_Windows._start", lambda real, self, span: real(self, span - 1), TOLLS),
    "starts earlier": ("_Windows._start", lambda real, self, span: real(self, span + 1), TOLLS),
    "with the current event": (
        "_Windows._before",
        lambda real, self, moments: real(self, moments + 1),
        TOLLS,
    ),
    "no as-of": ("_Windows.__init__", _no_as_of, TOLLS),
    "float32 sums": ("_between", _float_sums, {"tolls_sum", "tolls_mean"}),
    "late events are new ones": (
        "_Past.out_of_order",
        lambda real, self, entities: np.zeros(entities, np.bool_),
        SEEN,
    ),
    "never full": ("_most_events", lambda real, *given: 0, SEEN - {"all"}),
    "forgets between parts": ("_keep", lambda real, *given: None, TOLLS),
}
"""Faults of the path that takes much of a log at once, which training alone does."""


@pytest.mark.parametrize("fault", AT_ONCE)
def test_faults_of_reading_much_at_once_are_caught(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, faulty, features = AT_ONCE[fault]
    monkeypatch.setattr(batches, "STEPS", 256)
    owner: Any = batches
    *path, name = place.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    if fault.startswith("late"):  # the log has no late events where there is room for all
        monkeypatch.setattr(batches, "_most_events", lambda *given: 0)
    monkeypatch.setattr(owner, name, lambda *given: faulty(real, *given))
    found = replaying_requests.replay(DEFINITION, log())
    assert not found.holds
    assert named(found) == features


def test_the_row_that_differs_is_named_by_number_and_time() -> None:
    found = replaying_requests.replay(DEFINITION, log(), serving=NoBucket)
    (feature,) = [entry for entry in found.features if entry.mismatched]
    given = log().request
    unknown = [place for place, name in enumerate(given["place"]) if name in "def"]
    assert feature.mismatched == len(unknown)
    moment = np.datetime64(int(given["at"][unknown[0]]), "us")
    assert feature.first[0].row == f"request {unknown[0]} at {moment}Z"
    assert (feature.first[0].expected, feature.first[0].found) == (1.0, 0.0)


def test_what_the_log_lacks_is_said() -> None:
    plain = log()
    events = {
        name: given._replace(
            times_us=np.asarray(given.arrived_us), sequence=np.arange(len(np.asarray(given[0])))
        )
        for name, given in plain.events.items()
    }
    found = replaying_requests.replay(DEFINITION, Log(events, plain.request), serving=DropsLate)
    assert found.holds  # a fault that this log cannot show
    lacking = {name for name, times in found.exercised.items() if not times}
    assert {"late events", "duplicate events", "events too far ahead"} <= lacking


def test_a_log_without_a_request_proves_nothing() -> None:
    empty = {name: [] for name in DEFINITION.field_names}
    with pytest.raises(InvalidInput, match="the log has no request"):
        replaying_requests.replay(DEFINITION, Log({}, empty))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, as far as parity needs it, and a log."""
    folder = tmp_path_factory.mktemp("parity")
    (folder / "bundle").mkdir()
    (folder / "bundle/features.json").write_bytes(definitions.serialize(DEFINITION))
    log_folder.write(folder / "log", DEFINITION, log())
    return folder / "bundle", folder / "log"


def test_the_command_tells_what_was_compared_and_what_the_log_has(
    written: tuple[Path, Path],
) -> None:
    done = CliRunner().invoke(app, ["parity", *map(str, written)])
    assert done.exit_code == 0, done.output
    assert "late events 5" in done.output
    assert "440 requests, 27 features compared: 0 features differ" in done.output
    said = json.loads(CliRunner().invoke(app, ["parity", *map(str, written), "--json"]).stdout)
    assert (said["kind"], said["rows"], said["missing"], said["extra"]) == ("requests", 440, 0, 0)
    assert said["exercised"]["restarts"] > 10
    assert {entry["compared"] for entry in said["features"]} == {440}


def test_a_difference_is_shown_and_refused(
    written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    between = batches._between
    monkeypatch.setattr(batches, "_between", lambda *given: _float_sums(between, *given))
    done = CliRunner().invoke(app, ["parity", *map(str, written)])
    assert isinstance(done.exception, RefusedByGate)
    assert "tolls_sum" in done.stdout
    assert "2 features differ" in done.stdout


@pytest.mark.parametrize(
    "fault",
    [*FAULTS, Forgetful],  # one restart: other losses show in a longer log
    ids=lambda fault: fault.__name__,
)
def test_a_faulty_device_does_not_answer_golden_rows(
    fault: type[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = goldens.features(DEFINITION, log())
    assert goldens.served(DEFINITION, log()).tobytes() == golden.tobytes()
    monkeypatch.setattr(goldens, "RequestEvaluator", fault)
    assert goldens.served(DEFINITION, log()).tobytes() != golden.tobytes()
