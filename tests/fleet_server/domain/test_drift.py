"""The drift detector on drawn periods: quiet while the world wanders as usual, quick when not."""

import numpy as np
import numpy.typing as npt
import pytest

from fleet_server.domain.drifting.detector import observe
from fleet_server.domain.drifting.expectation import Period, Seen, Settings
from fleet_server.domain.drifting.finding import DriftFinding
from fleet_server.domain.drifting.measures import ChannelKind, Channels, WatchedChannel
from fleet_server.domain.drifting.state import EVERYONE, DriftState

BINS = 12


def channel(name: str, kind: ChannelKind, size: int = BINS) -> WatchedChannel:
    usual = (0, *[100] * (size - 3), 0, 0) if name != "predicted" else (100,) * size
    return WatchedChannel(name=name, kind=kind, usual=usual, ordered=name != "predicted")


CHANNELS = Channels(
    [
        *(channel(name, "input") for name in ("ax", "ay", "az", "wx")),
        *(channel(f"{name}_mean", "feature") for name in ("ax", "ay")),
        channel("confidence", "score"),
        channel("predicted", "score", 7),
    ]
)
SAMPLES = 200
"""Counts of an input for each row."""
DEVICES = 20
ROWS = 40
"""Rows of one device in one period."""
ACTIVITIES = 7
SETTINGS = Settings()

Int64 = npt.NDArray[np.int64]


class Fleet:
    """Devices that go through activities in turn, each with mixtures of its own."""

    def __init__(self, seed: int, devices: int = DEVICES) -> None:
        self.rng = np.random.default_rng(seed)
        shape = (ACTIVITIES, devices)
        # Most devices lean to the low bins, so that a mirror image shows.
        self.mixtures = {
            channel.name: self.rng.dirichlet(np.geomspace(2.0, 0.2, channel.size - 1), shape)
            for channel in CHANNELS.channels
        }
        self.rows_per_activity = self.rng.integers(14, 20, devices)
        self.offsets = self.rng.integers(0, 1000, devices)

    def period(self, number: int, *, turned: tuple[str, ...] = (), rows: int = ROWS) -> Int64:
        """Flat counts of all devices; a turned channel shows its mirror image."""
        return np.concatenate([self._channel(c, number, turned, rows) for c in CHANNELS.channels])

    def _channel(
        self, channel: WatchedChannel, number: int, turned: tuple[str, ...], rows: int
    ) -> Int64:
        total = np.zeros(channel.size, np.int64)
        mixtures = self.mixtures[channel.name]
        times = number * ROWS + np.arange(rows)
        for device, (per, offset) in enumerate(
            zip(self.rows_per_activity, self.offsets, strict=True)
        ):
            activities = (times + offset) // per % ACTIVITIES
            for activity, count in enumerate(np.bincount(activities, minlength=ACTIVITIES)):
                values = int(count) * (SAMPLES if channel.kind == "input" else 1)
                total[:-1] += self.rng.multinomial(values, mixtures[activity, device])
        if channel.name in turned:
            total[:-1] = total[-2::-1]
        return total


def arms_of(counts: Int64, rows: int = DEVICES * ROWS) -> Period:
    return {EVERYONE: {"incumbent": Seen(rows, counts)}}


def take(
    state: DriftState, seen: Period, number: int, channels: Channels = CHANNELS
) -> DriftFinding | None:
    """One period of a few seconds: all of them lie in one hour."""
    return observe(state, channels, seen, number, 0, SETTINGS)


def learned(fleet: Fleet, periods: int = 20) -> DriftState:
    state = DriftState(len(CHANNELS))
    for number in range(periods):
        assert take(state, arms_of(fleet.period(number)), number) is None
    return state


def watch(
    state: DriftState, fleet: Fleet, first: int, periods: int, turned: tuple[str, ...]
) -> tuple[DriftFinding | None, int]:
    """Go on until something is found: finding, periods that it took."""
    for passed in range(1, periods + 1):
        counts = fleet.period(first + passed - 1, turned=turned)
        finding = take(state, arms_of(counts), first + passed - 1)
        if finding is not None:
            return finding, passed
    return None, periods


@pytest.mark.parametrize("seed", range(3))
def test_activities_in_a_loop_raise_no_alarm(seed: int) -> None:
    fleet = Fleet(seed)
    finding, _ = watch(learned(fleet), fleet, 20, 130, ())
    assert finding is None


@pytest.mark.parametrize("seed", range(3))
def test_two_turned_axes_are_named_within_three_periods(seed: int) -> None:
    fleet = Fleet(seed)
    turned = ("ax", "ay", "ax_mean", "ay_mean")
    state = learned(fleet)
    finding, passed = watch(state, fleet, 20, 10, turned)
    assert finding is not None
    assert passed <= 3
    more, _ = watch(state, fleet, 20 + passed, 2, turned)
    finding = more or finding
    assert finding.open
    assert finding.kind == "data"
    assert finding.response == "retrain"
    assert {f.channel for f in finding.figures if f.kind == "input"} == {"ax", "ay"}
    kinds = [figure.kind for figure in finding.figures]
    assert kinds == sorted(kinds, key=["input", "feature", "score"].index)
    assert finding.since == 20
    assert finding.blamed_release is None
    assert finding.summary.startswith(("data drift in ax, ay", "data drift in ay, ax"))


def test_a_change_of_the_answers_alone_is_another_kind() -> None:
    fleet = Fleet(4)
    finding, _ = watch(learned(fleet), fleet, 20, 10, ("predicted", "confidence"))
    assert finding is not None
    assert finding.kind == "prediction"
    assert finding.response == "rethink"
    assert set(finding.channels) <= {"predicted", "confidence"}


def test_a_drift_is_told_once_and_ends_when_the_data_are_as_before() -> None:
    fleet = Fleet(5)
    state = learned(fleet)
    opened, passed = watch(state, fleet, 20, 10, ("ax",))
    assert opened is not None
    watch(state, fleet, 20 + passed, 4, ("ax",))  # what joins
    again, _ = watch(state, fleet, 30, 20, ("ax",))
    assert again is None
    ended, passed = watch(state, fleet, 60, 10, ())
    assert ended is not None
    assert not ended.open
    assert ended.since == opened.since
    assert passed <= 5
    assert state.memory.since is None
    finding, _ = watch(state, fleet, 80, 10, ("ax",))
    assert finding is not None
    assert finding.open


def test_one_drift_ends_although_another_begins() -> None:
    fleet = Fleet(13)
    state = learned(fleet)
    first, _ = watch(state, fleet, 20, 10, ("ax",))
    assert first is not None
    for number in range(30, 40):
        take(state, arms_of(fleet.period(number, turned=("ax",))), number)
    ended, passed = watch(state, fleet, 40, 10, ("wx",))
    assert ended is not None
    assert not ended.open
    second, _ = watch(state, fleet, 40 + passed, 10, ("wx",))
    assert second is not None
    assert {f.channel for f in second.figures if f.kind == "input"} == {"wx"}


def test_a_drift_that_hits_candidate_and_control_alike_is_the_worlds() -> None:
    fleet = Fleet(6)
    state, found = learned(fleet), None
    for number in range(20, 30):
        arms = {
            arm: Seen(DEVICES * ROWS, fleet.period(number, turned=("ay",)))
            for arm in ("control", "shadow", "incumbent")
        }
        found = take(state, {EVERYONE: arms}, number)
        if found is not None:
            break
    assert found is not None
    assert set(found.arms) == {"candidate", "control", "incumbent"}
    assert found.alike
    assert found.blamed_release is None
    assert "alike, so no release is blamed" in found.summary


def test_a_drift_of_one_arm_alone_is_not_called_alike() -> None:
    fleet = Fleet(7)
    state, found = learned(fleet), None
    for number in range(20, 40):
        arms = {
            "control": Seen(DEVICES * ROWS, fleet.period(number)),
            "shadow": Seen(DEVICES * ROWS, fleet.period(number, turned=("ax", "ay", "az"))),
        }
        found = take(state, {EVERYONE: arms}, number)
        if found is not None:
            break
    assert found is not None
    assert not found.alike
    assert abs(found.arms["candidate"]) > abs(found.arms["control"])


def test_a_candidates_few_devices_teach_and_alarm_nothing() -> None:
    fleet = Fleet(8)
    state = DriftState(len(CHANNELS))
    for number in range(20):
        arms = {"candidate": Seen(DEVICES * ROWS, fleet.period(number))}
        assert take(state, {EVERYONE: arms}, number) is None
    assert not state.learned.any()


def test_periods_with_too_few_rows_say_nothing() -> None:
    fleet = Fleet(9)
    state = learned(fleet)
    before = state.pack()
    few = fleet.period(20, rows=1, turned=("ax", "ay"))
    assert take(state, arms_of(few, 20), 20) is None
    assert state.pack() == before


def test_a_quiet_night_wanders_more_by_chance_and_raises_no_alarm() -> None:
    rng = np.random.default_rng(12)
    one = Channels([channel("ax_mean", "feature")])
    state = DriftState(1)
    for number in range(100):
        rows = 20_000 if number < 40 else 100
        counts = rng.multinomial(rows, np.full(BINS, 1 / BINS))
        assert take(state, arms_of(counts, rows), number, one) is None


def test_a_channel_that_saw_nothing_does_not_drift() -> None:
    fleet = Fleet(10)
    state = learned(fleet)
    for number in range(20, 30):
        counts = fleet.period(number)
        counts[-7:] = 0
        assert take(state, arms_of(counts), number) is None


def test_no_arms_change_nothing() -> None:
    state = DriftState(len(CHANNELS))
    before = state.pack()
    assert take(state, {}, 0) is None
    assert state.pack() == before


def test_constant_counts_are_learned_and_watched() -> None:
    counts = np.zeros(CHANNELS.total, np.int64)
    counts[CHANNELS.starts + 2] = 1000
    state = DriftState(len(CHANNELS))
    for number in range(60):
        assert take(state, arms_of(counts, 1000), number) is None
    finding = take(state, arms_of(np.roll(counts, 4), 1000), 60)
    assert finding is not None
    assert set(finding.channels) == {c.name for c in CHANNELS.channels}


def test_a_detector_goes_on_from_its_stored_state() -> None:
    """A restart of the server between any two periods changes nothing."""
    fleet = Fleet(11)
    state, stored = DriftState(len(CHANNELS)), DriftState(len(CHANNELS))
    season = b""
    for number in range(40):
        turned = ("ax", "ay") if number >= 30 else ()
        seen = arms_of(fleet.period(number, turned=turned))
        hour = number // 4
        finding = observe(state, CHANNELS, seen, number, hour, SETTINGS)
        again = DriftState.unpack(stored.pack(), season or stored.pack_season(), len(CHANNELS))
        assert again is not None
        stored = again
        assert observe(stored, CHANNELS, seen, number, hour, SETTINGS) == finding
        if stored.season_changed:
            season = stored.pack_season()
        assert stored.pack() == state.pack()
    assert state.memory.since is not None


def test_a_state_of_an_older_server_is_not_believed() -> None:
    assert DriftState.unpack(b'{"v":1}', b"", 3) is None


def test_noise_that_grows_with_the_fleet_is_no_drift() -> None:
    """Many more windows for the same rows: noise alone, which the detector is told of."""
    one = Channels([channel("ax", "input")])
    rng = np.random.default_rng(4)
    rows, each = 2000, 5.0
    findings = []
    for told in (True, False):
        state = DriftState(1)
        found = None
        for number in range(40):
            windows = 10 if number < 20 else 1500
            spread = each * np.sqrt(windows)
            counts = rng.multinomial(rows, np.full(BINS, 1 / BINS)) + rng.normal(0, spread, BINS)
            seen = arms_of(np.round(counts).astype(np.int64), rows)
            noise = np.array([spread / rows]) if told else None
            found = found or observe(state, one, seen, number, 0, SETTINGS, noise)
        findings.append(found)
    assert findings[0] is None
    assert findings[1] is not None
