"""Runs surfaces for a while with fresh inputs: ``python -m tests.fuzz --seconds 60``.

Ends with 1 where something was found; its input is stored, with the command that feeds it again.
"""

import argparse
import secrets
import sys
import tempfile
import time
import warnings
from pathlib import Path

import msgspec

from tests.fuzz import running
from tests.fuzz.all_surfaces import SURFACES
from tests.fuzz.running import Found, Tally

BUILD = Path("build")
MOST_GROWTH = 48 * 1024 * 1024
"""Resident bytes that a run may gain after its first third; what an agent keeps is bounded."""
SAID_EVERY = 5.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one surface's run came to."""

    surface: str
    seed: int
    seconds: float
    inputs: int
    refused: int
    kinds: dict[str, int]
    slowest_ms: float
    growth_mib: float
    failure: str = ""
    input: str = ""
    replay: str = ""


def main() -> int:
    """Run, print a table, write ``build/fuzz.json``."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each surface")
    parser.add_argument("--surface", action="append", choices=sorted(SURFACES))
    parser.add_argument("--seed", type=int, help="the same inputs as an earlier run")
    parser.add_argument("--replay", type=Path, help="feed one stored input again")
    asked = parser.parse_args()
    warnings.simplefilter("error")
    if asked.replay is not None:
        return replay(asked.replay)
    results = []
    for name in asked.surface or SURFACES:
        seed = secrets.randbelow(2**32) if asked.seed is None else asked.seed
        results.append(run(name, seed, asked.seconds))
    BUILD.mkdir(exist_ok=True)
    (BUILD / "fuzz.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
    )
    print_table(results)
    return 1 if any(result.failure for result in results) else 0


def run(name: str, seed: int, seconds: float) -> Result:
    """Run one surface, and show how it goes on."""
    began = time.monotonic()
    said = began
    seen = Tally()
    settled = 0
    _warm(name)
    files = running.descriptors()

    def goes_on(tally: Tally) -> bool:
        nonlocal said, seen, settled
        seen, now = tally, time.monotonic()
        if not settled and now - began > seconds / 3:
            settled = running.resident()
        if now - said > SAID_EVERY:
            said = now
            rate = tally.inputs / (now - began)
            print(f"{name}: {tally.inputs} inputs, {rate:.0f}/s", file=sys.stderr, flush=True)
        return now - began < seconds

    failure, kept, command = "", "", ""
    growth = 0
    with tempfile.TemporaryDirectory() as folder:
        surface = SURFACES[name](Path(folder))
        try:
            running.welcome(surface)
            running.run(surface, seed, goes_on)
            growth = running.resident() - (settled or running.resident())
            if growth > MOST_GROWTH:
                failure = f"memory grew by {growth / 2**20:.0f} MiB"
        except Found as found:
            failure = str(found)
            kept = str(running.store(BUILD / "fuzz", name, found.case))
            command = f"python -m tests.fuzz --replay {kept}"
            print(f"{name}: {failure}\n  {command}", file=sys.stderr, flush=True)
        finally:
            surface.close()
    if not failure and running.descriptors() > files:
        failure = f"{running.descriptors() - files} files stayed open"
    return Result(
        surface=name,
        seed=seed,
        seconds=time.monotonic() - began,
        inputs=seen.inputs,
        refused=seen.refused,
        kinds=dict(seen.kinds),
        slowest_ms=seen.slowest * 1000,
        growth_mib=growth / 2**20,
        failure=failure,
        input=kept,
        replay=command,
    )


def _warm(name: str) -> None:
    """Open a surface once, for what libraries keep open for good."""
    with tempfile.TemporaryDirectory() as folder:
        surface = SURFACES[name](Path(folder))
        surface.check()
        surface.close()


def replay(path: Path) -> int:
    """Feed one stored input; 1 where it still does harm."""
    name, case = running.load(path)
    with tempfile.TemporaryDirectory() as folder, running.listening() as complaints:
        surface = SURFACES[name](Path(folder))
        tally = Tally()
        try:
            running.feed(surface, case, tally, complaints)
            running.check(surface, case)
        except Found as found:
            print(f"{name}: {found}")
            return 1
        finally:
            surface.close()
    print(f"{name}: {'refused' if tally.refused else 'taken'} {dict(tally.kinds)}")
    return 0


def print_table(results: list[Result]) -> None:
    """One line for each surface."""
    print(f"{'surface':<16}{'inputs':>10}{'per s':>8}{'refused':>10}{'slowest':>10}{'growth':>10}")
    for result in results:
        end = result.failure.strip().splitlines()[-1][:80] if result.failure else ""
        print(
            f"{result.surface:<16}{result.inputs:>10}{result.inputs / result.seconds:>8.0f}"
            f"{result.refused:>10}{result.slowest_ms:>7.0f} ms{result.growth_mib:>6.1f} MiB  {end}"
        )
        if result.replay:
            print(f"  {result.replay}")


if __name__ == "__main__":
    sys.exit(main())
