"""Fleets whose counts are drawn, minute by minute, for many devices at once.

Devices differ for ever (people, mounting, sites) and for some minutes (activities); all of them
have days and nights; rows repeat one another; labels come late. Both releases see the same world.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fleet_server.domain.cohort import Role
from fleet_server.domain.columns import ARMS, COUNTS, Columns
from fleet_server.domain.evidence import METHOD, Baseline, Cell, Evidence, Member
from fleet_server.domain.plan import Stage

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

COPIES = 2
"""Rows in a row that overlap so much that they are right or wrong together."""
DAY_MINUTES = 1440
CHUNK = 60
"""Minutes that are drawn at once."""
SLICES = ("hw=new", "hw=old")
NEW_EVERY = 5
"""One device in so many is of the slice ``hw=new``."""
LATENCY_BINS = np.array([0, 0, 0, 0, 0, 0, 0, 0.7, 0.25, 0.05])
BOTH, INCUMBENT, CANDIDATE, NEITHER = range(4)
LABELS = ("right", "wrong", "both_right", "only_active_right", "only_shadow_right", "both_wrong")


@dataclass(frozen=True, kw_only=True)
class World:
    """What is true of a fleet and of two releases; accuracies are shares of rows."""

    devices: int = 200
    rows_per_hour: float = 600.0
    """Of a device, over a whole day."""
    label_minutes: int = 5
    """How late labels are."""
    accuracy: float = 0.80
    """Of the incumbent."""
    better: tuple[float, float] = (0.0, 0.0)
    """What the candidate adds to it, by slice."""
    device_effect: float = 0.08
    """Standard deviation of devices' own accuracy."""
    interaction: float = 0.01
    """Standard deviation, over devices, of what the candidate adds."""
    wandering: float = 0.08
    """Standard deviation over time of a device's accuracy: activities come and go."""
    shifting: float = 0.05
    """The same of what the candidate adds: some activities suit it more."""
    wandering_minutes: float = 10.0
    agreement: float = 0.5
    """Share of rows on which the two releases err together, as far as their rates allow."""
    day: float = 0.05
    """How far the time of day moves every device's accuracy, up and down."""
    day_rows: float = 0.6
    """The same of the row rate, as a share of it."""
    drift: float = 0.0
    """What all devices lose in the middle of a stage, whatever they run."""
    drift_minute: int = 20
    errors: float = 0.002
    error_ratio: float = 1.0
    """How many times as often the candidate fails."""
    unusual: float = 0.2
    unusual_added: float = 0.0
    fallback: float = 0.01
    fallback_added: float = 0.0
    baseline_rows: int = 3600
    liar: float | None = None
    """Share of rows that device 0 calls right for the candidate, of a thousand times as many."""


class Look(NamedTuple):
    """What is known at one minute of a stage."""

    minute: int
    evidence: Evidence
    cells: Columns


class Fleet:
    """One draw of a fleet, which goes through stages."""

    def __init__(self, world: World, rng: np.random.Generator, *, paired: bool = True) -> None:
        self.world = world
        self.rng = rng
        self.paired = paired
        self.names = [f"d{place:05d}" for place in range(world.devices)]
        self.slice = np.where(np.arange(world.devices) % NEW_EVERY == 0, 0, 1)
        self.effect = rng.normal(0, world.device_effect, world.devices)
        noise = rng.normal(0, world.interaction, world.devices)
        self.added = np.array(world.better)[self.slice] + noise
        self.minute = float(rng.integers(DAY_MINUTES))
        """Of the day, at which the next chunk begins."""
        self.mood = rng.normal(0, 1, (2, world.devices))
        rates = np.clip(world.accuracy + self.effect, 0.02, 0.98)
        self.before = COPIES * rng.binomial(world.baseline_rows // COPIES, rates).astype(float)

    def looks(self, stage: Stage, minutes: list[int]) -> Iterator[Look]:
        """The stage at rising minutes since its beginning."""
        layout = _Layout(self, stage)
        drawn = self._draw(0)
        for minute in minutes:
            while drawn.known < minute:
                drawn = drawn.then(self._draw(drawn.known))
            labelled = max(0, minute - self.world.label_minutes)
            yield layout.look(minute, drawn.at(minute), drawn.at(labelled))
            drawn = drawn.forget(labelled)

    def _draw(self, since: int) -> "_Drawn":
        """The next chunk of a stage that has lasted ``since`` minutes."""
        world, rng = self.world, self.rng
        turn = 2 * np.pi * (self.minute + np.arange(CHUNK)) / DAY_MINUTES
        self.minute += CHUNK
        drifted = (since + np.arange(CHUNK) >= world.drift_minute) * world.drift
        common = world.accuracy + world.day * np.sin(turn) - drifted
        mood, suits = self._wander()
        rate = common + self.effect[:, None] + world.wandering * mood
        incumbent = np.clip(rate, 0.02, 0.98)
        added = self.added[:, None] + world.shifting * suits
        candidate = np.clip(incumbent + added, 0.01, 0.99)
        both = world.agreement * np.minimum(incumbent, candidate)
        both += (1 - world.agreement) * incumbent * candidate
        shares = np.stack(
            [both, incumbent - both, candidate - both, 1 - incumbent - candidate + both], axis=-1
        )
        hourly = world.rows_per_hour * (1 + world.day_rows * np.sin(turn + 1))
        pairs = rng.poisson(np.broadcast_to(hourly / 60 / COPIES, rate.shape))
        outcomes = COPIES * rng.multinomial(pairs, np.maximum(shares, 0))
        return _Drawn(since, np.cumsum(outcomes, axis=1, dtype=np.float64))

    def _wander(self) -> Float64:
        """What comes and goes on each device, with variance 1: [2, devices, minutes]."""
        kept = np.exp(-1 / self.world.wandering_minutes)
        found = self.rng.normal(0, np.sqrt(1 - kept**2), (2, self.world.devices, CHUNK))
        for place in range(CHUNK):
            self.mood = kept * self.mood + found[:, :, place]
            found[:, :, place] = self.mood
        return found


class _Drawn(NamedTuple):
    """Sums of outcomes since the stage began: float64 [devices, minutes, 4], from ``since`` on."""

    since: int
    sums: Float64

    @property
    def known(self) -> int:
        return self.since + self.sums.shape[1]

    def at(self, minute: int) -> Float64:
        if minute == 0:
            return np.zeros((len(self.sums), 4))
        found: Float64 = self.sums[:, minute - self.since - 1]
        return found

    def then(self, later: "_Drawn") -> "_Drawn":
        added = self.sums[:, -1:] + later.sums
        return _Drawn(self.since, np.concatenate([self.sums, added], axis=1))

    def forget(self, minute: int) -> "_Drawn":
        """Drop what lies a chunk or more before a minute."""
        drop = max(0, minute - 1 - self.since) // CHUNK * CHUNK
        return _Drawn(self.since + drop, self.sums[:, drop:]) if drop else self


class _Layout:
    """Which cells a stage has, and how they are filled from outcomes."""

    def __init__(self, fleet: Fleet, stage: Stage) -> None:
        self._fleet, self._stage = fleet, stage
        devices = fleet.world.devices
        self._roles = _roles(fleet.rng, devices, stage)
        arms = {
            "shadow": ["incumbent", "shadow"],
            "candidate": ["candidate", *(["shadow"] if fleet.paired else []), "fallback"],
            "control": ["control", "fallback"],
            "none": [],
        }
        kinds = [(d, arm) for d, role in enumerate(self._roles) for arm in arms[role]]
        self._device = np.array([device for device, _ in kinds])
        self._arm = np.array([ARMS.index(arm) for _, arm in kinds])
        roles = np.array(self._roles)
        right = fleet.before[self._device]
        self._evidence = Evidence(
            method=METHOD,
            cells=[],
            members=[
                Member(device=name, role=role, confirmed=True)
                for name, role in zip(fleet.names, self._roles, strict=True)
                if role != "none"
            ],
            slices=list(SLICES),
            elapsed_seconds=0.0,
            has_incumbent=True,
        )
        self._cells = Columns(
            devices=devices,
            device=self._device,
            arm=self._arm,
            slice=fleet.slice[self._device],
            slices=list(SLICES),
            at=np.arange(len(kinds)),
            counts=np.zeros((len(COUNTS), len(kinds))),
            all_latency=np.zeros((len(kinds), len(LATENCY_BINS))),
            before=np.stack([right, fleet.world.baseline_rows - right]),
            before_rate=float(fleet.before.mean() / fleet.world.baseline_rows),
            candidates=roles == "candidate",
            controls=roles == "control",
        )
        seeds = np.random.default_rng(int(fleet.rng.integers(2**32)))
        self._luck = seeds.normal(size=(3, len(kinds)))
        """Of the counts that are not outcomes: devices differ in them for the whole stage."""

    def look(self, minute: int, outcomes: Float64, labelled: Float64) -> Look:
        """Fill in what is known."""
        rows = outcomes.sum(axis=1)[self._device]
        counts = np.zeros((len(COUNTS), len(self._device)))
        counts[COUNTS.index("rows")] = rows
        candidate, shadow = self._answers()
        for name, value in zip(LABELS, self._labels(labelled, candidate, shadow), strict=True):
            counts[COUNTS.index(name)] = value
        self._others(counts, rows, candidate)
        latency = np.rint(rows[:, None] * LATENCY_BINS)
        latency[self._arm == ARMS.index("fallback")] = 0
        if self._fleet.world.liar is not None:
            self._lie(counts, candidate, self._fleet.world.liar)
        cells = replace(self._cells, counts=counts, all_latency=latency)
        changed = {name: getattr(self._evidence, name) for name in Evidence.__struct_fields__}
        changed["elapsed_seconds"] = minute * 60.0
        return Look(minute, Evidence(**changed), cells)

    def _answers(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which cells are the candidate's, and which hold pairs."""
        shadow = self._arm == ARMS.index("shadow")
        ours = shadow if self._stage.kind == "shadow" else self._arm == ARMS.index("candidate")
        return ours, shadow

    def _labels(
        self, outcomes: Float64, candidate: npt.NDArray[np.bool_], shadow: npt.NDArray[np.bool_]
    ) -> list[Float64]:
        own = outcomes[self._device] * (self._arm != ARMS.index("fallback"))[:, None]
        right = own[:, BOTH] + np.where(candidate, own[:, CANDIDATE], own[:, INCUMBENT])
        active, silent = (
            (INCUMBENT, CANDIDATE) if self._stage.kind == "shadow" else (CANDIDATE, INCUMBENT)
        )
        pairs = [own[:, place] * shadow for place in (BOTH, active, silent, NEITHER)]
        return [right, own.sum(axis=1) - right, *pairs]

    def _others(self, counts: Float64, rows: Float64, candidate: npt.NDArray[np.bool_]) -> None:
        """Errors, unusual scores and fallbacks: shares of rows that differ between devices."""
        world = self._fleet.world
        fallback = self._arm == ARMS.index("fallback")
        served = np.isin(self._device, np.flatnonzero(self._cells.candidates))
        shares = [
            world.errors * np.where(candidate, world.error_ratio, 1.0),
            world.unusual + world.unusual_added * candidate,
            world.fallback + world.fallback_added * served,
        ]
        spread = (0.5 * world.errors, 0.04, 0.5 * world.fallback)
        errors, unusual, fallbacks = (
            np.rint(rows * np.clip(share + sd * luck, 0, 1))
            for share, sd, luck in zip(shares, spread, self._luck, strict=True)
        )
        counts[COUNTS.index("errors")] = np.where(fallback, 0.0, errors)
        counts[COUNTS.index("scored")] = np.where(fallback, 0.0, rows)
        counts[COUNTS.index("unusual")] = np.where(fallback, 0.0, unusual)
        counts[COUNTS.index("rows")] = np.where(fallback, fallbacks, rows)

    def _lie(self, counts: Float64, candidate: npt.NDArray[np.bool_], share: float) -> None:
        """Device 0 claims a thousand times its rows, with the outcome that it likes."""
        lying = self._device == int(np.flatnonzero(self._cells.candidates | _shadows(self))[0])
        rows = 1000 * counts[COUNTS.index("rows")]
        right = np.where(candidate, share, 1 - share)
        values = {"rows": rows, "right": rows * right, "wrong": rows * (1 - right)}
        if self._stage.kind == "shadow":
            values |= {"only_active_right": rows * (1 - share), "only_shadow_right": rows * share}
        else:
            values |= {"only_active_right": rows * share, "only_shadow_right": rows * (1 - share)}
        pairs = self._arm == ARMS.index("shadow")
        for name in ("both_right", "both_wrong"):
            counts[COUNTS.index(name), lying] = 0
        for name, value in values.items():
            chosen = lying & pairs if name.startswith("only") else lying
            counts[COUNTS.index(name), chosen] = np.rint(value[chosen])


def _shadows(layout: _Layout) -> npt.NDArray[np.bool_]:
    return np.array(layout._roles) == "shadow"


def _roles(rng: np.random.Generator, devices: int, stage: Stage) -> list[Role]:
    """Drawn within each slice, as cohorts are."""
    if stage.kind == "shadow":
        return ["shadow"] * devices
    roles: list[Role] = ["none"] * devices
    for slice_ in (0, 1):
        members = [d for d in range(devices) if (d % NEW_EVERY == 0) == (slice_ == 0)]
        count = max(1, round(stage.share * len(members)))
        drawn = rng.permutation(members)
        for place, device in enumerate(drawn.tolist()):
            roles[device] = (
                "candidate" if place < count else "control" if place < 2 * count else "none"
            )
    return roles


def as_evidence(look: Look, fleet: Fleet) -> Evidence:
    """The same look as the server gathers it: cells by name."""
    cells = look.cells
    columns = {name: cells[name].astype(int).tolist() for name in COUNTS}
    latency = cells.latency.astype(int).tolist()
    made = [
        Cell(
            device=fleet.names[device],
            arm=ARMS[arm],  # type: ignore[arg-type]
            slice=SLICES[slice_],
            latency=latency[place],
            **{name: columns[name][place] for name in COUNTS},
        )
        for place, (device, arm, slice_) in enumerate(
            zip(cells.device.tolist(), cells.arm.tolist(), cells.slice.tolist(), strict=True)
        )
    ]
    rows = fleet.world.baseline_rows
    before = [
        Baseline(device=name, slice=SLICES[slice_], right=int(right), wrong=rows - int(right))
        for name, slice_, right in zip(
            fleet.names, fleet.slice.tolist(), fleet.before.tolist(), strict=True
        )
    ]
    kept = {name: getattr(look.evidence, name) for name in Evidence.__struct_fields__}
    return Evidence(**(kept | {"cells": made, "baselines": before}))
