"""An agent under a sampling profiler: where its threads stand, looked at a thousand times a second.

    python sampled_agent.py RESULT serve BUNDLE --socket PATH ...

Looking needs the interpreter's lock, so a stage that holds it long is seen at its end, and a thread
that waits for the lock counts as running: shares are good to a few per cent, not better. At the
end RESULT gets how often each stage was seen running.
"""

import json
import linecache
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PERIOD_SECONDS = 0.001
STAGES = (
    ("edge_agent/inference/", "model: run"),
    ("edge_core/features/", "features"),
    ("edge_core/stats/", "statistics"),
    ("edge_agent/monitor.py", "statistics"),
    ("edge_agent/sampling.py", "statistics"),
    ("edge_agent/serving/predictions.py", "version logging (recent predictions)"),
    ("edge_agent/serving/frames.py", "frames: decode and encode"),
    ("edge_agent/serving/admission.py", "admission"),
    ("edge_core/outputs.py", "softmax"),
    ("edge_agent/serving/socket.py", "socket: read, parse and write"),
    ("edge_agent/serving/rest.py", "REST"),
    ("edge_agent/serving/tensors.py", "REST"),
    ("uvicorn/", "REST"),
    ("starlette/", "REST"),
    ("edge_agent/serving/", "queueing and batching"),
    ("asyncio/", "event loop"),
    ("selectors.py", "event loop"),
)
"""The innermost file of a stack that is named here decides; the longest way down first."""
WAITING = (".poll(", ".select(", ".get(", "wait(", ".acquire(", "lock.acquire", "_wait_for_tstate")


def stage_of(frame: FrameType) -> str | None:
    """Which stage a thread is in; none while it waits."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    if any(word in line for word in WAITING):
        return None
    place: FrameType | None = frame
    while place is not None:
        name = place.f_code.co_filename
        for part, stage in STAGES:
            if part in name:
                return stage
        place = place.f_back
    return "other"


def sample(counts: Counter[str], lines: Counter[str], stop: threading.Event) -> None:
    mine = threading.get_ident()
    while not stop.is_set():
        time.sleep(PERIOD_SECONDS)
        for number, frame in sys._current_frames().items():
            if number == mine:
                continue
            stage = stage_of(frame)
            if stage is not None:
                counts[stage] += 1
                name = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
                lines[f"{name}:{frame.f_lineno} {frame.f_code.co_name}"] += 1


def main() -> int:
    from edge_agent.__main__ import main as agent

    counts: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    stop = threading.Event()
    sys.setswitchinterval(0.0005)

    def begin(*_: object) -> None:
        counts.clear()
        lines.clear()

    signal.signal(signal.SIGUSR1, begin)
    thread = threading.Thread(target=sample, args=(counts, lines, stop), daemon=True)
    thread.start()
    try:
        return agent(sys.argv[2:])
    finally:
        stop.set()
        thread.join()
        found = {"stages": dict(counts), "lines": dict(lines.most_common(25))}
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
