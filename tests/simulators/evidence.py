"""Fleets whose counts are drawn: devices differ, wander, and repeat themselves.

For tests of verdicts: everything that happens in a stage is drawn at once, and the evidence at
any moment is a slice of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleet_server.domain.cohort import DeviceFacts, assign
from fleet_server.domain.evidence import METHOD, Baseline, Cell, Evidence, Member
from fleet_server.domain.plan import Plan, Stage
from fleet_server.domain.verdict import Verdict, judge

SIDES = ("left", "right")
COPIES = 2
"""Rows that overlap so much that they are right or wrong together."""
WANDERING = 0.9
"""How much of a device's momentary difficulty stays for :data:`LOOK_SECONDS`."""
LOOK_SECONDS = 2.0

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a fleet and of two releases."""

    devices: int = 20
    rows_per_second: float = 10.0
    accuracy: float = 0.75
    """Of the incumbent."""
    better: dict[str, float] = field(default_factory=lambda: {"left": 0.0, "right": 0.0})
    """What the candidate adds to it, by side."""
    device_effect: float = 0.08
    """Standard deviation of devices' own accuracy."""
    interaction: float = 0.01
    """Standard deviation, over devices, of what the candidate adds."""
    wandering: float = 0.08
    """Standard deviation over time of a device's accuracy: activities come and go."""
    shifting: float = 0.05
    """The same of what the candidate adds: some activities suit it more."""
    agreement: float = 0.5
    """Share of rows on which the two releases err together, as far as their rates allow."""
    baseline_seconds: float = 60.0
    look_every: float = LOOK_SECONDS


class Fleet:
    """One draw of a fleet, which goes through stages."""

    def __init__(self, truth: Truth, rng: np.random.Generator, *, paired: bool = True) -> None:
        self.truth = truth
        self.paired = paired
        self.rng = rng
        self.names = [f"d{place:03d}" for place in range(truth.devices)]
        self.sides = [SIDES[place % 2] for place in range(truth.devices)]
        self.effect = rng.normal(0, truth.device_effect, truth.devices)
        added = np.array([truth.better[side] for side in self.sides])
        self.added = added + rng.normal(0, truth.interaction, truth.devices)
        self.facts = [
            DeviceFacts(device=name, slices={"side": side})
            for name, side in zip(self.names, self.sides, strict=True)
        ]
        before = self._draw(truth.baseline_seconds)[:, -1]
        self.baselines = [
            Baseline(
                device=name,
                slice=f"side={side}",
                right=int(own[:2].sum()),
                wrong=int(own[2:].sum()),
            )
            for name, side, own in zip(self.names, self.sides, before, strict=True)
        ]

    def looks(self, stage: Stage, plan: Plan, seconds: float) -> Iterator[Evidence]:
        """Evidence of one stage, look by look."""
        salt = str(self.rng.integers(2**32))
        roles = assign(self.facts, stage, salt=salt, strata=plan.strata)
        members = [
            Member(device=name, role=roles[name], confirmed=roles[name] != "none")
            for name in self.names
        ]
        counts = self._draw(seconds)
        for look in range(counts.shape[1]):
            yield Evidence(
                method=METHOD,
                cells=[
                    cell
                    for place, name in enumerate(self.names)
                    for cell in self._cells(place, roles[name], counts[place, look])
                ],
                baselines=self.baselines,
                members=members,
                slices=[f"side={side}" for side in SIDES],
                elapsed_seconds=(look + 1) * self.truth.look_every,
                has_incumbent=True,
            )

    def _draw(self, seconds: float) -> Int64:
        """Rows so far: both right, only incumbent right, only candidate, none.

        int64 [devices, looks, 4].
        """
        truth = self.truth
        looks = max(1, round(seconds / truth.look_every))
        mood = truth.wandering * self._wander(looks)
        suits = truth.shifting * self._wander(looks)
        incumbent = np.clip(truth.accuracy + self.effect[:, None] + mood, 0.02, 0.98)
        candidate = np.clip(incumbent + self.added[:, None] + suits, 0.01, 0.99)
        both = truth.agreement * np.minimum(incumbent, candidate)
        both += (1 - truth.agreement) * incumbent * candidate
        shares = np.stack(
            [both, incumbent - both, candidate - both, 1 - incumbent - candidate + both], axis=-1
        )
        rows = round(truth.rows_per_second * truth.look_every / COPIES)
        return COPIES * self.rng.multinomial(rows, np.maximum(shares, 0)).cumsum(axis=1)

    def _wander(self, looks: int) -> Float64:
        """What comes and goes on each device, with variance 1: float64 [devices, looks]."""
        found = self.rng.normal(0, 1, (self.truth.devices, looks))
        kept = WANDERING ** (self.truth.look_every / LOOK_SECONDS)
        for look in range(1, looks):
            found[:, look] = kept * found[:, look - 1] + np.sqrt(1 - kept**2) * found[:, look]
        return found

    def _cells(self, place: int, role: str, counts: Int64) -> list[Cell]:
        both, incumbent, candidate, neither = map(int, counts)
        rows = both + incumbent + candidate + neither
        name, slice_ = self.names[place], f"side={self.sides[place]}"
        latency = [0] * 7 + [rows]

        def cell(arm: str, right: int, **more: int) -> Cell:
            return Cell(
                device=name, arm=arm, slice=slice_, rows=rows, right=right, wrong=rows - right,
                latency=latency, **more,
            )  # fmt: skip

        pairs = {"both_right": both, "both_wrong": neither}
        if role == "shadow":
            pairs |= {"only_active_right": incumbent, "only_shadow_right": candidate}
            return [cell("incumbent", both + incumbent), cell("shadow", both + candidate, **pairs)]
        if role == "candidate":
            pairs |= {"only_active_right": candidate, "only_shadow_right": incumbent}
            ours = [cell("candidate", both + candidate)]
            return [*ours, cell("shadow", both + incumbent, **pairs)] if self.paired else ours
        return [cell("control" if role == "control" else "incumbent", both + incumbent)]


def run(fleet: Fleet, plan: Plan, stage_seconds: float) -> tuple[str, float, Verdict | None]:
    """Take a fleet through all stages: outcome, seconds, last verdict."""
    elapsed = 0.0
    verdict = None
    for stage in plan.stages:
        for evidence in fleet.looks(stage, plan, stage_seconds):
            verdict = judge(stage, plan, evidence)
            if verdict.decision != "hold":
                break
        elapsed += evidence.elapsed_seconds
        if verdict is None or verdict.decision != "promote":
            return (
                ("rolled back" if verdict and verdict.decision == "rollback" else "open"),
                elapsed,
                verdict,
            )
    return "promoted", elapsed, verdict
