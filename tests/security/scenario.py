"""Attacks on one shared fleet: each is a handful of tries, every one refused while all serve on."""

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.device import Fault
from tests.faults.running import Outcome
from tests.security.attacked import NotServing
from tests.security.fleet import Fleet


class Tries:
    """Counts what one attack tries. Whatever a try raises means that it was not refused."""

    def __init__(self, fleet: Fleet, outcome: Outcome) -> None:
        self._fleet = fleet
        self._outcome = outcome

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Try one thing, which the body does and sees refused."""
        self._outcome.points += 1
        try:
            yield
        except Fault as fault:
            self._failed(what, str(fault))
            return
        except Exception as error:  # whatever it is, nothing was refused
            self._failed(what, f"{type(error).__name__}: {error}; {traceback.format_exc()[-600:]}")
            return
        silent = self._fleet.silent()
        if silent:
            self._failed(what, str(NotServing(silent)))
        else:
            self._outcome.survived += 1

    def _failed(self, what: str, why: str) -> None:
        self._outcome.failures.append((what, why))
        print(f"\n{self._outcome.name}, {what}: {why[:300]}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of attack on a fleet."""

    name: str
    what: str
    run: Callable[[Fleet, Tries], None]


def run_scenarios(scenarios: Sequence[Scenario], folder: Path) -> list[Outcome]:
    """Run them on one fleet, in their order."""
    if not scenarios:
        return []
    with Fleet(folder) as fleet:
        return [_run(fleet, scenario) for scenario in scenarios]


def _run(fleet: Fleet, scenario: Scenario) -> Outcome:
    begun = time.monotonic()
    outcome = Outcome(scenario.name)
    tries = Tries(fleet, outcome)
    try:
        scenario.run(fleet, tries)
    except Exception as error:  # it could not even be tried
        outcome.points += 1
        outcome.failures.append(("", f"{type(error).__name__}: {traceback.format_exc()[-900:]}"))
    outcome.seconds = time.monotonic() - begun
    print(
        f"{scenario.name}: {outcome.survived} of {outcome.points} refused "
        f"in {outcome.seconds:.1f} s",
        flush=True,
    )
    return outcome


def expect(held: bool, otherwise: str) -> None:
    """Raise :class:`Fault` where an attack came through."""
    if not held:
        raise Fault(otherwise)
