"""Serving one bundle without a fleet: for a first look, and for measuring."""

import asyncio
from pathlib import Path

from edge_agent.inference import target_choice
from edge_agent.monitor import Monitor
from edge_agent.serving import socket
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_core.bundle import folder as folders

WINDOW_SECONDS = 60.0
SAMPLE_EVERY = 100
MAX_QUEUE_ROWS = 4096


async def serve(
    bundle: Path,
    target: str | None,
    path: Path,
    now_ms: int,
    stop: asyncio.Event,
    *,
    rest_port: int = 0,
) -> None:
    """Serve the bundle's variant on a Unix socket until ``stop``; statistics are kept, not sent.

    Without a target it is the one for this machine; without a port there is no REST.

    Raises:
        InvalidBundle: a file is missing or altered, or the bundle has no such variant.
        InvalidConfiguration: the port or the socket cannot be used.
    """
    manifest = folders.read(bundle)
    folders.check(bundle, manifest)
    target = target_choice.chosen(manifest, target)
    release = LoadedRelease.open(bundle, target)
    loop = asyncio.get_running_loop()
    started = loop.time()

    def wall_us() -> int:
        return now_ms * 1000 + int((loop.time() - started) * 1e6)

    monitor = Monitor(device="standalone", sample_every=SAMPLE_EVERY, now_ms=now_ms)
    engine = Engine(monitor, slices={}, max_queue_rows=MAX_QUEUE_ROWS, now_us=wall_us)
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
        },
    )
    rest_server = None
    if rest_port:
        # Not above: they take memory and time where nobody uses them.
        from importlib.metadata import version

        from edge_agent.serving import rest

        app = rest.create_app(engine, version("serinus"))
        rest_server = asyncio.create_task(rest.serve(app, rest.listen(rest_port)))
    print(f"serving {release.ref.name} on {path} with {release.session.runtime}", flush=True)
    while not stop.is_set():
        try:
            async with asyncio.timeout(WINDOW_SECONDS):
                await stop.wait()
        except TimeoutError:
            monitor.close(wall_us() // 1000)
            monitor.take_samples()
    if rest_server is not None:
        rest_server.cancel()
        await asyncio.gather(rest_server, return_exceptions=True)
    server.close()
    await engine.close()
    path.unlink(missing_ok=True)
