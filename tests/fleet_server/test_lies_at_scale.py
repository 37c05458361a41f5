"""Many devices that lie at once: figures are the honest ones', and what liars may weigh."""

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from edge_core.messages.telemetry import StatsWindow
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from fleet_server.services import ingest
from fleet_server.services.ingest import Inbound
from fleet_server.storage import tables
from tests.fleet_server.conftest import Repository
from tests.fleet_server.test_lying_devices import (
    HOUR_MS,
    HUGE,
    counted_in,
    loose,
    outcome,
    packed,
    rejected,
    report,
    rows,
    schema_of,
    take,
    window,
)
from tests.simulators.spoken_fleet import SpokenFleet


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Repository) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


@pytest.mark.parametrize("liars", [1, 500], ids=["one device", "many devices"])
def test_ten_thousand_slices_leave_no_row(fleet: SpokenFleet, ref: ReleaseRef, liars: int) -> None:
    take(fleet, [loose(window(fleet, ref, "honest", slices={"side": s})) for s in ("left",)])
    before = rows(fleet)
    take(
        fleet,
        (
            loose(window(fleet, ref, f"liar-{n % liars}", sequence=n, slices={"side": f"s{n}"}))
            for n in range(10_000)
        ),
    )
    assert rows(fleet) == before | {"rejected": liars}
    assert sum(rejected(fleet).values()) == 10_000 * min(liars, 200) // liars
    assert {key[1:] for key in rejected(fleet)} == {("stats", "undeclared slice")}


SORT = 20
HONEST = 2000
ROWS, RIGHT = 100, 80


class Liars:
    """Twenty devices of each sort: what they say, and how many rows of it may count."""

    def __init__(self, fleet: SpokenFleet, schemas: dict[str, WindowSchema]) -> None:
        self._now = fleet.clock()
        self._schemas = schemas

    def _said(self, *said: StatsWindow) -> list[Inbound]:
        return [packed(one, self._schemas[one.release.digest]) for one in said]

    def _wrong(self, true: StatsWindow, rows: int, **changes: Any) -> StatsWindow:
        plain = msgspec.structs.replace(true, **changes)
        return outcome(plain, self._schemas[true.release.digest], 0, rows)

    def impossible(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """More labels than rows."""
        lie = outcome(true, self._schemas[true.release.digest], 5000, 0)
        return self._said(msgspec.structs.replace(lie, rows=ROWS)), 0

    def foreign(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """Speaks for an honest device, on a topic of its own."""
        other = msgspec.structs.replace(true, device="honest-0001", sequence=7)
        return [packed(other, self._schemas[true.release.digest], true.device)], 0

    def slicing(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """Slices that nobody declared."""
        return [
            loose(msgspec.structs.replace(true, sequence=n, slices={"side": f"{true.device}-{n}"}))
            for n in range(10)
        ], 0

    def repeating(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """The same again and again."""
        return self._said(*[true] * 5), ROWS

    def rewinding(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """Goes on in a new outbox, and says what was in the old one again."""
        newer = msgspec.structs.replace(true, epoch="newer")
        return self._said(true, newer, true, newer, true), 2 * ROWS

    def travelling(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """A clock that is a day before or behind, in 1970 and in 2100."""
        day = 24 * HOUR_MS
        moments = (self._now + day, self._now - day, 1000, 4_102_444_800_000)
        return self._said(
            *(
                msgspec.structs.replace(true, sequence=n, opened_ms=at, closed_ms=at + 2000)
                for n, at in enumerate(moments)
            )
        ), 4 * ROWS

    def loud(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """A hundred times its share, and all of it wrong."""
        return self._said(*(self._wrong(true, ROWS, sequence=n) for n in range(100))), 100 * ROWS

    def huge(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """A billion rows, all wrong."""
        return self._said(self._wrong(true, HUGE)), HUGE

    def climbing(self, true: StatsWindow) -> tuple[list[Inbound], int]:
        """Says of itself that it is a candidate, whatever it is; it counts, and proves nothing."""
        return self._said(self._wrong(true, ROWS, arm="candidate", sequence=2), true), 2 * ROWS


SORTS = ("impossible", "foreign", "slicing", "repeating", "rewinding", "travelling", "loud", "huge",
         "climbing")  # fmt: skip
WINDOWS = {"repeating": 1, "rewinding": 2, "travelling": 4, "loud": 100, "huge": 1, "climbing": 2}
"""That count, of each such device."""
WRONG = ("loud", "huge", "climbing")
REFUSED = {
    "impossible": ("impossible counts", 1),
    "foreign": ("speaks for another device", 1),
    "slicing": ("undeclared slice", 10),
}


def test_two_thousand_honest_devices_and_twenty_of_each_sort_of_liars(
    fleet: SpokenFleet, ref: ReleaseRef, repository: Repository
) -> None:
    names = [f"honest-{number:04}" for number in range(HONEST)]
    names += [f"{sort}-{number:02}" for sort in SORTS for number in range(SORT)]
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    fleet.produce(ref, [])
    sides = {name: ("left", "right")[place % 2] for place, name in enumerate(names)}
    take(
        fleet,
        (
            report(fleet, name, active=ref, update="committed", slices={"side": side})
            for name, side in sides.items()
        ),
    )
    plan = {"stages": [{"kind": "canary", "share": 0.5, "min_seconds": 0}]}
    rollout = fleet.services.rollouts.start(new.name, plan, "ann").rollout
    wishes = fleet.wishes()
    take(
        fleet,
        (
            report(
                fleet, name, active=fleet.refs[wish.active], shadow=fleet.refs.get(wish.shadow),
                update="committed", desired_revision=wish.revision, slices={"side": sides[name]},
            )
            for name, wish in wishes.items()
        ),
    )  # fmt: skip
    schemas = {known.digest: schema_of(fleet, known) for known in (ref, new)}
    liars = Liars(fleet, schemas)
    said: list[Inbound] = []
    expected: dict[str, int] = {}
    for name, side in sides.items():
        active = fleet.refs[wishes[name].active]
        true = outcome(
            window(fleet, active, name, arm=wishes[name].arm, rollout=rollout,
                   slices={"side": side}),
            schemas[active.digest], RIGHT, ROWS - RIGHT,
        )  # fmt: skip
        sort = name.split("-")[0]
        told, expected[name] = (
            getattr(liars, sort)(true)
            if sort in SORTS
            else ([packed(true, schemas[active.digest])], ROWS)
        )
        said += told
    random.Random(1).shuffle(said)
    before = rows(fleet)
    take(fleet, said)

    assert counted_in(fleet, tables.totals, "device") == {n: c for n, c in expected.items() if c}
    assert counted_in(fleet, tables.days, "arm") == counted_in(fleet, tables.totals, "arm")
    after = rows(fleet)
    assert after["windows"] == HONEST + SORT * sum(WINDOWS.values())
    assert after["epochs"] == HONEST + SORT * (len(WINDOWS) + 1)
    assert after["devices"] == before["devices"] == len(names)
    assert after["cells"] <= len(names) + SORT
    found = rejected(fleet)
    assert found == {
        (f"{sort}-{number:02}", "stats", reason): times
        for sort, (reason, times) in REFUSED.items()
        for number in range(SORT)
    }
    with fleet.services.database.read() as connection:
        alerts = tables.alerts.c
        wrong = sa.select(alerts.subject).where(alerts.kind == ingest.CLOCK)
        subjects = set(connection.execute(wrong).scalars())
    assert subjects == {f"travelling-{number:02}" for number in range(SORT)}

    fleet.decide(1)
    shown = fleet.services.rollouts.one(rollout)
    assert shown.latest is not None
    assert shown.state == "promoting", shown.latest.reason
    estimate = shown.latest["evidence"][0]["estimate"]
    arms = Counter(wish.arm for name, wish in wishes.items() if name.split("-")[0] in WRONG)
    # The rest says the same of both releases; a liar counts twice at most, and is wrong always.
    most = 2 * max(arms.values()) / (HONEST / 2) * RIGHT / ROWS
    assert abs(estimate) < most
