"""An agent under a profiler: CPU time of its threads by stage, from the signal BEGIN to its end.

    python profiled_agent.py RESULT serve BUNDLE --socket PATH ...

Each thread has a cProfile of its own. Its cost for each call is measured beforehand and taken off,
and so is waiting for requests: shares are good to compare stages, not to the last per cent. What
numpy or the standard library take is charged to who called them. Where other programs keep the
cores busy, a call that wakes the load (``send``) seems dear: it is given the agent's core.
"""

import cProfile
import json
import pstats
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

STAGES = (
    ("edge_agent/inference/", "model: run"),
    ("edge_core/features/", "features"),
    ("edge_core/stats/", "statistics"),
    ("edge_agent/monitor.py", "statistics"),
    ("edge_agent/sampling.py", "statistics"),
    ("edge_agent/serving/predictions.py", "version logging"),
    ("edge_agent/serving/prediction_log.py", "version logging"),
    ("edge_core/outputs.py", "softmax"),
    ("edge_agent/serving/frames.py", "frames: decode and encode"),
    ("edge_agent/serving/connection.py", "socket: read and write"),
    ("edge_agent/serving/socket.py", "socket: dispatch"),
    ("edge_agent/serving/admission.py", "admission"),
    ("edge_agent/serving/rest", "REST"),
    ("edge_agent/serving/tensors.py", "REST"),
    ("edge_agent/serving/answering.py", "batching and answers"),
    ("edge_agent/serving/", "queueing"),
    ("uvicorn/", "REST"),
    ("starlette/", "REST"),
    ("asyncio/", "event loop"),
)
"""A part of a file's path, and what is done there."""
DEEPEST = 12
WAITING = ("'poll'", "'select'", "'acquire'", "'get' of '_queue", "time.sleep")
"""Calls that wait for work rather than do it."""
CALIBRATION_CALLS = 200_000

Function = tuple[str, int, str]


def stage_of(function: Function) -> str | None:
    name = function[0]
    return next((stage for part, stage in STAGES if part in name), None)


class Charges:
    """Own times of functions, charged to the stage that they work for."""

    def __init__(self, stats: dict[Function, Any], cost: float) -> None:
        self._stats = stats
        self.stages: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        for function, (_, calls, own, _, _) in stats.items():
            if any(word in function[2] for word in WAITING):
                continue
            own = max(0.0, own - calls * cost)
            self._charge(function, own, 0)
            self.functions[_named(function)] += own

    def _charge(self, function: Function, seconds: float, depth: int) -> None:
        stage = stage_of(function)
        callers = self._stats[function][4] if function in self._stats else {}
        whole = sum(call[3] for call in callers.values())
        if stage is not None or not whole or depth > DEEPEST:
            self.stages[stage or "other"] += seconds
            return
        for caller, call in callers.items():
            self._charge(caller, seconds * call[3] / whole, depth + 1)


def _named(function: Function) -> str:
    file, line, name = function
    if file == "~":
        return name
    path = file.removeprefix(f"{ROOT}/")
    return f"{path.rpartition('site-packages/')[2]}:{line} {name}"


def cost_of_a_call() -> float:
    """Seconds that the profiler adds to what it reports, for each call."""

    def nothing() -> None:
        pass

    def calls() -> None:
        for _ in range(CALIBRATION_CALLS):
            nothing()

    began = time.perf_counter()
    calls()
    plain = time.perf_counter() - began
    profile = cProfile.Profile()
    profile.runcall(calls)
    reported: float = pstats.Stats(profile).total_tt  # type: ignore[attr-defined]
    return max(0.0, reported - plain) / CALIBRATION_CALLS


def main() -> int:
    from edge_agent.__main__ import main as agent

    cost = min(cost_of_a_call() for _ in range(5))
    mine = cProfile.Profile()
    profiles = [mine]
    run = threading.Thread.run

    def profiled(thread: threading.Thread) -> None:
        profile = cProfile.Profile()
        profiles.append(profile)
        profile.enable()
        try:
            run(thread)
        finally:
            profile.disable()

    threading.Thread.run = profiled  # type: ignore[method-assign]  # every thread, also a library's
    signal.signal(signal.SIGUSR1, lambda *_: mine.enable())
    try:
        return agent(sys.argv[2:])
    finally:
        mine.disable()
        stages: Counter[str] = Counter()
        functions: Counter[str] = Counter()
        for profile in profiles:
            profile.create_stats()
            if profile.stats:  # type: ignore[attr-defined]  # create_stats() makes it
                charges = Charges(pstats.Stats(profile).stats, cost)  # type: ignore[attr-defined]
                stages.update(charges.stages)
                functions.update(charges.functions)
        found = {"stages": dict(stages), "functions": dict(functions.most_common(20))}
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
