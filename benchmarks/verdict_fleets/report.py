"""What came of the runs: shares, times, and the table of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from benchmarks.verdict_fleets.scenarios import Scenario

OURS = "ours"
NAMES = (OURS, "z at every look", "z, rows apart", "fixed horizon", "O'Brien-Fleming")


class Ended(NamedTuple):
    """How one run ended under one test."""

    outcome: str
    minutes: int


class Line(NamedTuple):
    """One scenario under every test."""

    scenario: Scenario
    runs: list[dict[str, Ended]]

    def share(self, name: str) -> float:
        """Of runs that ended as the scenario watches for."""
        return sum(run[name].outcome == self.scenario.watched for run in self.runs) / len(self.runs)

    def times(self, name: str) -> tuple[float, float] | None:
        """Median and 95th percentile of the minutes, undecided runs counted as late as can be."""
        if name not in self.runs[0]:
            return None
        watched = self.scenario.watched
        found = [run[name].minutes if run[name].outcome == watched else np.inf for run in self.runs]
        low, high = (float(v) for v in np.percentile(found, [50, 95], method="higher"))
        return low, high

    def met(self) -> bool | None:
        """Whether the goal is met; none where there is none."""
        if self.scenario.most is not None:
            return self.share(OURS) <= self.scenario.most
        if self.scenario.within is not None:
            found = self.times(OURS)
            return found is not None and found[0] <= self.scenario.within
        return None


def shown(line: Line, name: str) -> str:
    """Share, or share and time."""
    if name not in line.runs[0]:
        return "-"
    share = f"{line.share(name):.1%}"
    if line.scenario.most is not None:
        return share
    times = line.times(name)
    assert times is not None
    low, high = (f"{value:.0f}" if np.isfinite(value) else "never" for value in times)
    return f"{share}, {low} min ({high})" if low != "never" else share


def ratio(line: Line) -> str:
    """Mistakes of the z-test at every look by ours; or time of the fixed horizon by ours."""
    if len(line.scenario.stages) > 1:
        return "-"
    if line.scenario.most is not None:
        ours, theirs = line.share(OURS), line.share("z at every look")
        return f"{theirs / ours:.0f}x" if ours else ("-" if not theirs else "none of ours")
    ours_at, fixed_at = line.times(OURS), line.times("fixed horizon")
    assert ours_at is not None
    assert fixed_at is not None
    return f"{fixed_at[0] / ours_at[0]:.1f}x" if np.isfinite(fixed_at[0]) else "-"


def goal(scenario: Scenario) -> str:
    """In words."""
    if scenario.most is not None:
        return f"<= {scenario.most:.0%}"
    return f"<= {scenario.within} min" if scenario.within else ""


def table_of(lines: Sequence[Line]) -> Table:
    """One row a scenario."""
    table = Table(title="share of runs; where time counts, median and (95th percentile) minutes")
    for column in ("scenario", "runs", *NAMES, "ratio", "goal", "met"):
        table.add_column(column)
    for line in lines:
        met = {None: "", True: "yes", False: "NO"}[line.met()]
        cells = [shown(line, name) for name in NAMES]
        number = str(len(line.runs))
        table.add_row(line.scenario.name, number, *cells, ratio(line), goal(line.scenario), met)
    return table


def record(line: Line) -> dict[str, Any]:
    """For the JSON file."""
    return {
        "scenario": line.scenario.name,
        "runs": len(line.runs),
        "goal": goal(line.scenario),
        "met": line.met(),
        "tests": {
            name: {
                "share": line.share(name),
                "minutes": line.times(name),
                "outcomes": {
                    outcome: sum(run[name].outcome == outcome for run in line.runs)
                    for outcome in ("promote", "rollback", "open")
                },
            }
            for name in line.runs[0]
        },
    }
