"""The drift detector on drawn periods: quiet while the world wanders as usual, quick when not."""

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from fleet_server.domain.drift import (
    DriftFinding,
    DriftState,
    Settings,
    WatchedChannel,
    observe,
)

BINS = 12
CHANNELS = [
    *(WatchedChannel(name=name, kind="input", size=BINS) for name in ("ax", "ay", "az", "wx")),
    *(WatchedChannel(name=f"{name}_mean", kind="feature", size=BINS) for name in ("ax", "ay")),
    WatchedChannel(name="confidence", kind="score", size=BINS),
    WatchedChannel(name="predicted", kind="score", size=7),
]
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
            channel.name: self.rng.dirichlet(np.geomspace(2.0, 0.2, channel.size), shape)
            for channel in CHANNELS
        }
        self.rows_per_activity = self.rng.integers(14, 20, devices)
        self.offsets = self.rng.integers(0, 1000, devices)

    def period(self, number: int, *, turned: tuple[str, ...] = (), rows: int = ROWS) -> Int64:
        """Flat counts of all devices; a turned channel shows its mirror image."""
        return np.concatenate([self._channel(c, number, turned, rows) for c in CHANNELS])

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
                total += self.rng.multinomial(values, mixtures[activity, device])
        return total[::-1] if channel.name in turned else total


def arms_of(counts: Int64, rows: int = DEVICES * ROWS) -> dict[str, tuple[int, Int64]]:
    return {"incumbent": (rows, counts)}


def learned(fleet: Fleet, periods: int = 20) -> DriftState:
    state = DriftState()
    for number in range(periods):
        state, finding = observe(state, CHANNELS, arms_of(fleet.period(number)), number, SETTINGS)
        assert finding is None
    assert state.margins
    return state


def watch(
    state: DriftState, fleet: Fleet, first: int, periods: int, turned: tuple[str, ...]
) -> tuple[DriftState, DriftFinding | None, int]:
    """Go on until something is found: state, finding, periods that it took."""
    for passed in range(1, periods + 1):
        counts = fleet.period(first + passed - 1, turned=turned)
        state, finding = observe(state, CHANNELS, arms_of(counts), first + passed - 1, SETTINGS)
        if finding is not None:
            return state, finding, passed
    return state, None, periods


@pytest.mark.parametrize("seed", range(3))
def test_activities_in_a_loop_raise_no_alarm(seed: int) -> None:
    fleet = Fleet(seed)
    _, finding, _ = watch(learned(fleet), fleet, 20, 130, ())
    assert finding is None


@pytest.mark.parametrize("seed", range(3))
def test_two_turned_axes_are_named_within_three_periods(seed: int) -> None:
    fleet = Fleet(seed)
    turned = ("ax", "ay", "ax_mean", "ay_mean")
    _, finding, passed = watch(learned(fleet), fleet, 20, 10, turned)
    assert finding is not None
    assert passed <= 3
    assert finding.open
    assert finding.kind == "data"
    assert {c.name for c in finding.channels if c.kind == "input"} == {"ax", "ay"}
    assert [c.kind for c in finding.channels] == sorted(
        (c.kind for c in finding.channels), key=["input", "feature", "score"].index
    )
    assert finding.since == 20
    assert finding.blamed_release is None
    assert finding.summary.startswith(("data drift in ax, ay", "data drift in ay, ax"))


def test_a_change_of_the_answers_alone_is_another_kind() -> None:
    fleet = Fleet(4)
    _, finding, _ = watch(learned(fleet), fleet, 20, 10, ("predicted", "confidence"))
    assert finding is not None
    assert finding.kind == "prediction"
    assert {c.name for c in finding.channels} <= {"predicted", "confidence"}


def test_a_drift_is_told_once_and_ends_when_the_data_are_as_before() -> None:
    fleet = Fleet(5)
    state, opened, passed = watch(learned(fleet), fleet, 20, 10, ("ax",))
    assert opened is not None
    state, again, _ = watch(state, fleet, 20 + passed, 20, ("ax",))
    assert again is None
    state, ended, passed = watch(state, fleet, 60, 10, ())
    assert ended is not None
    assert not ended.open
    assert ended.since == opened.since
    assert passed <= 5
    assert state.since is None
    _, finding, _ = watch(state, fleet, 80, 10, ("ax",))
    assert finding is not None
    assert finding.open


def test_one_drift_ends_although_another_begins() -> None:
    fleet = Fleet(13)
    state, first, passed = watch(learned(fleet), fleet, 20, 10, ("ax",))
    assert first is not None
    state, ended, more = watch(state, fleet, 20 + passed, 10, ("wx",))
    assert ended is not None
    assert not ended.open
    _, second, _ = watch(state, fleet, 20 + passed + more, 10, ("wx",))
    assert second is not None
    assert [c.name for c in second.channels if c.kind == "input"] == ["wx"]


def test_a_drift_that_hits_candidate_and_control_alike_is_the_worlds() -> None:
    fleet = Fleet(6)
    state, found = learned(fleet), None
    for number in range(20, 30):
        arms = {
            arm: (DEVICES * ROWS, fleet.period(number, turned=("ay",)))
            for arm in ("control", "shadow", "incumbent")
        }
        state, found = observe(state, CHANNELS, arms, number, SETTINGS)
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
            "control": (DEVICES * ROWS, fleet.period(number)),
            "shadow": (DEVICES * ROWS, fleet.period(number, turned=("ax", "ay", "az"))),
        }
        state, found = observe(state, CHANNELS, arms, number, SETTINGS)
        if found is not None:
            break
    assert found is not None
    assert not found.alike
    assert found.arms["candidate"] > found.arms["control"]


def test_a_candidates_few_devices_teach_and_alarm_nothing() -> None:
    fleet = Fleet(8)
    state = DriftState()
    for number in range(20):
        arms = {"candidate": (DEVICES * ROWS, fleet.period(number))}
        state, finding = observe(state, CHANNELS, arms, number, SETTINGS)
        assert finding is None
    assert state == DriftState()


def test_periods_with_too_few_rows_say_nothing() -> None:
    fleet = Fleet(9)
    state = learned(fleet)
    few = fleet.period(20, rows=1, turned=("ax", "ay"))
    assert observe(state, CHANNELS, arms_of(few, 20), 20, SETTINGS) == (state, None)


def test_a_quiet_night_wanders_more_by_chance_and_raises_no_alarm() -> None:
    rng = np.random.default_rng(12)
    channel = [WatchedChannel(name="ax_mean", kind="feature", size=BINS)]
    state = DriftState()
    for number in range(100):
        rows = 20_000 if number < 40 else 100
        counts = rng.multinomial(rows, np.full(BINS, 1 / BINS))
        state, finding = observe(state, channel, arms_of(counts, rows), number, SETTINGS)
        assert finding is None


def test_a_channel_that_saw_nothing_does_not_drift() -> None:
    fleet = Fleet(10)
    state = learned(fleet)
    for number in range(20, 30):
        counts = fleet.period(number)
        counts[-7:] = 0
        state, finding = observe(state, CHANNELS, arms_of(counts), number, SETTINGS)
        assert finding is None


def test_no_arms_change_nothing() -> None:
    assert observe(DriftState(), CHANNELS, {}, 0, SETTINGS) == (DriftState(), None)


def test_constant_counts_are_learned_and_watched() -> None:
    counts = np.zeros(sum(c.size for c in CHANNELS), np.int64)
    starts = np.cumsum([0, *(c.size for c in CHANNELS)])[:-1]
    counts[starts] = 1000
    state = DriftState()
    for number in range(60):
        state, finding = observe(state, CHANNELS, arms_of(counts, 1000), number, SETTINGS)
        assert finding is None
    moved = arms_of(np.roll(counts, 1), 1000)
    state, early = observe(state, CHANNELS, moved, 60, SETTINGS)
    state, finding = observe(state, CHANNELS, moved, 61, SETTINGS)
    assert early is None
    assert finding is not None
    assert len(finding.channels) == len(CHANNELS)


def test_a_detector_goes_on_from_its_stored_state() -> None:
    """A restart of the server between any two periods changes nothing."""
    fleet = Fleet(11)
    state = stored = DriftState()
    for number in range(30):
        turned = ("ax", "ay") if number >= 20 else ()
        arms = arms_of(fleet.period(number, turned=turned))
        state, finding = observe(state, CHANNELS, arms, number, SETTINGS)
        stored = msgspec.json.decode(msgspec.json.encode(stored), type=DriftState)
        stored, again = observe(stored, CHANNELS, arms, number, SETTINGS)
        assert again == finding
    assert stored == state
    assert state.since is not None


def test_noise_that_grows_with_the_fleet_is_no_drift() -> None:
    """Many more windows for the same rows: noise alone, which the detector is told of."""
    channel = [WatchedChannel(name="ax", kind="input", size=BINS)]
    rng = np.random.default_rng(4)
    rows, one = 2000, 5.0
    findings = []
    for told in (True, False):
        state = DriftState()
        found = None
        for number in range(40):
            windows = 10 if number < 20 else 1500
            spread = one * np.sqrt(windows)
            counts = rng.multinomial(rows, np.full(BINS, 1 / BINS)) + rng.normal(0, spread, BINS)
            blur = BINS * spread * np.sqrt(2 / np.pi * 3) / (2 * 3 * rows)
            state, finding = observe(
                state,
                channel,
                arms_of(np.round(counts).astype(np.int64), rows),
                number,
                SETTINGS,
                [blur] if told else [],
            )
            found = found or finding
        findings.append(found)
    assert findings[0] is None
    assert findings[1] is not None
