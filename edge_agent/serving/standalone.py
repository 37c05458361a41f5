"""Serving one bundle without a fleet: for a first look, and for measuring."""

import asyncio
from pathlib import Path

from edge_agent.config import Fallback
from edge_agent.monitor import Monitor
from edge_agent.serving import socket, standing
from edge_agent.serving.breaker import Limits
from edge_agent.serving.engine import Engine
from edge_agent.serving.policy import Policy
from edge_agent.serving.release import LoadedRelease
from edge_core.bundle import folder as folders

WINDOW_SECONDS = 60.0
SAMPLE_EVERY = 100
MAX_QUEUE_ROWS = 4096


async def serve(bundle: Path, target: str, path: Path, now_ms: int, stop: asyncio.Event) -> None:
    """Serve the bundle's variant on a Unix socket until ``stop``; statistics are kept, not sent.

    Raises:
        InvalidBundle: a file is missing or altered, or the bundle has no such variant.
    """
    folders.check(bundle, folders.read(bundle))
    release = LoadedRelease.open(bundle, target)
    loop = asyncio.get_running_loop()
    started = loop.time()

    def wall_us() -> int:
        return now_ms * 1000 + int((loop.time() - started) * 1e6)

    monitor = Monitor(device="standalone", sample_every=SAMPLE_EVERY, now_ms=now_ms)
    policy = Policy(Limits(), now_us=wall_us, monotonic=loop.time, missing=Fallback().missing)
    engine = Engine(
        monitor, slices={}, max_queue_rows=MAX_QUEUE_ROWS, now_us=wall_us, policy=policy
    )
    engine.set_active(release, "incumbent", None)
    server = await socket.listen(
        path,
        engine,
        lambda: {
            "active": release.ref.name,
            "rows": engine.totals.rows,
            "target": target,
            "features": release.kind,
            "clock_held": engine.remembering.clock_held,
            **standing.described(engine),
        },
    )
    print(f"serving {release.ref.name} on {path} with {release.session.runtime}", flush=True)
    while not stop.is_set():
        try:
            async with asyncio.timeout(WINDOW_SECONDS):
                await stop.wait()
        except TimeoutError:
            monitor.close(wall_us() // 1000)
            monitor.take_samples()
    server.close()
    await engine.close()
    path.unlink(missing_ok=True)
