"""What is asked of verdicts: worlds, stages, and goals."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from benchmarks.verdict_fleets.fleet import World
from fleet_server.domain.plan import DEFAULT_PLAN, Metric, Metrics, Plan, Stage

Watched = Literal["rollback", "promote"]

WATCHFUL = Metrics(
    accuracy=Metric(margin=0.0025, allowed=0.02), slices=Metric(margin=0.02, allowed=0.04)
)
"""Margins with which the goals are measured."""
SHADOW = Stage(kind="shadow", share=1.0, min_seconds=600)
HALF = Stage(kind="canary", share=0.5, min_seconds=600)
TENTH = Stage(kind="canary", share=0.1, min_seconds=600)
PLAN = Plan(stages=[SHADOW, HALF], metrics=WATCHFUL, rows_per_observation=3.0)
LONG = 24 * 3600.0
HOUR = 60
EQUAL = World()
WORSE_2, WORSE_3, WORSE_5, BETTER_3 = (
    World(better=(points / 100, points / 100)) for points in (-2, -3, -5, 3)
)
HIDDEN = World(better=(-0.10, 0.025))
"""10 points worse on a fifth of the fleet, a little better elsewhere: on average as before."""
WEATHER = World(drift=0.10)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One line of the table."""

    name: str
    world: World
    stages: tuple[Stage, ...]
    watched: Watched
    """The decision whose share, and time, is shown."""
    most: float | None = None
    """Goal: at most this share of runs."""
    within: int | None = None
    """Goal: the median run takes at most so many minutes."""
    hours: int = 6
    """After which a stage is left undecided."""
    paired: bool = True
    every: int = 1
    """One of so many runs is enough for a line without a goal of its own."""


def _stage(name: str, stage: Stage, hours: int) -> list[Scenario]:
    def line(
        what: str,
        world: World,
        watched: Watched,
        most: float | None = None,
        within: int | None = None,
        every: int = 1,
    ) -> Scenario:
        return Scenario(
            name=f"{name}: {what}",
            world=world,
            stages=(stage,),
            watched=watched,
            most=most,
            within=within,
            hours=hours,
            every=every,
        )

    return [
        line("equal, rolled back", EQUAL, "rollback", most=0.02),
        line("equal, and the world gets harder for all", WEATHER, "rollback", most=0.02),
        line("3 points worse, promoted", WORSE_3, "promote", most=0.02),
        line("5 points worse, seen", WORSE_5, "rollback", within=30),
        line("2 points worse, seen", WORSE_2, "rollback", within=180),
        line("10 points worse on a fifth, same average, seen", HIDDEN, "rollback", every=4),
        line("3 points better, promoted", BETTER_3, "promote", every=4),
    ]


def _attacks(name: str, stage: Stage) -> list[Scenario]:
    return [
        Scenario(
            name=f"{name}: equal, one device says always wrong",
            world=World(liar=0.0),
            stages=(stage,),
            watched="rollback",
            most=0.02,
            every=8,
        ),
        Scenario(
            name=f"{name}: 3 points worse, one device says always right",
            world=World(better=(-0.03, -0.03), liar=1.0),
            stages=(stage,),
            watched="promote",
            most=0.02,
            every=8,
        ),
        Scenario(
            name=f"{name}: equal, looked at for a day",
            world=EQUAL,
            stages=(msgspec.structs.replace(stage, min_seconds=LONG),),
            watched="rollback",
            most=0.02,
            hours=23,
            every=8,
        ),
    ]


SCENARIOS: list[Scenario] = [
    *_stage("shadow", SHADOW, 6),
    *_stage("canary of half", HALF, 6),
    *_attacks("shadow", SHADOW),
    *_attacks("canary of half", HALF),
    Scenario(
        name="canary of half, no pairs: equal, rolled back",
        world=EQUAL,
        stages=(HALF,),
        watched="rollback",
        most=0.02,
        paired=False,
        every=10,
    ),
    Scenario(
        name="canary of half, no pairs: equal, and the world gets harder",
        world=WEATHER,
        stages=(HALF,),
        watched="rollback",
        most=0.02,
        paired=False,
        every=10,
    ),
    Scenario(
        name="canary of half, no pairs: 5 points worse, seen",
        world=WORSE_5,
        stages=(HALF,),
        watched="rollback",
        paired=False,
        every=10,
    ),
    Scenario(
        name="canary of a tenth: 5 points worse, seen",
        world=WORSE_5,
        stages=(TENTH,),
        watched="rollback",
        hours=24,
        every=4,
    ),
    Scenario(
        name="canary of a tenth: 2 points worse, seen",
        world=WORSE_2,
        stages=(TENTH,),
        watched="rollback",
        hours=24,
        every=10,
    ),
    *(
        Scenario(
            name=f"shadow, canary of a tenth, ramp to half: {what}",
            world=world,
            stages=tuple(DEFAULT_PLAN.stages),
            watched=watched,
            most=most,
            hours=24,
            every=20,
        )
        for what, world, watched, most in (
            ("equal, rolled back", EQUAL, "rollback", 0.02),
            ("equal, promoted", EQUAL, "promote", None),
            ("3 points better, promoted", BETTER_3, "promote", None),
        )
    ),
]
