"""Serving bundles without a fleet: for a first look, and for measuring."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edge_agent.config import Fallback, Update
from edge_agent.inference import target_choice
from edge_agent.monitor import Monitor
from edge_agent.serving import open_protocol, socket, standing
from edge_agent.serving.breaker import Limits
from edge_agent.serving.engine import Engine
from edge_agent.serving.policy import Policy
from edge_agent.serving.prediction_log import PredictionLog
from edge_agent.serving.release import LoadedRelease
from edge_agent.watchdog import Watchdog
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidConfiguration

WINDOW_SECONDS = 60.0
SAMPLE_EVERY = 100
MAX_QUEUE_ROWS = 4096
LOG_BYTES = 8 * 1024 * 1024


async def serve(
    bundles: Sequence[Path],
    target: str | None,
    path: Path,
    now_ms: int,
    stop: asyncio.Event,
    *,
    rest_port: int = 0,
    grpc_port: int = 0,
    log_folder: Path | None = None,
) -> None:
    """Serve the bundles' variants on a Unix socket until ``stop``; statistics are kept, not sent.

    Args:
        bundles: one of each model.
        target: of the variants; none for those of this machine.
        path: of the socket.
        now_ms: UTC now.
        stop: ends it.
        rest_port: of the Open Inference Protocol on 127.0.0.1; 0 for none.
        grpc_port: the same over gRPC.
        log_folder: where each prediction's release is noted; nowhere if none.

    Raises:
        InvalidBundle: a file is missing or altered, or a bundle has no such variant.
        InvalidConfiguration: two bundles are of the same model, or the port is taken.
    """
    releases = [_opened(bundle, target) for bundle in bundles]
    _refuse_twins(releases)
    loop = asyncio.get_running_loop()
    started = loop.time()

    def wall_us() -> int:
        return now_ms * 1000 + int((loop.time() - started) * 1e6)

    monitor = Monitor(device="standalone", sample_every=SAMPLE_EVERY, now_ms=now_ms)
    noted = _log_in(log_folder) if log_folder else None
    engine = Engine(
        monitor,
        slices={},
        max_queue_rows=MAX_QUEUE_ROWS,
        now_us=wall_us,
        prediction_log=noted,
        policy=Policy(Limits(), now_us=wall_us, monotonic=loop.time, missing=Fallback().missing),
        hang_seconds=Update().hang_seconds,
    )
    watchdog = Watchdog([engine.thread.heartbeat], Update().hang_seconds)
    for number, release in enumerate(releases):
        lane = engine.add_lane() if number else engine.lanes[0]
        lane.set_active(release, "incumbent", None)
    status = partial(_status, engine)
    open_servers = open_protocol.servers(engine, status, rest_port=rest_port, grpc_port=grpc_port)
    server = await socket.listen(path, engine, status)
    watchdog.start()
    running = [asyncio.create_task(serve()) for serve in open_servers]
    names = ", ".join(release.ref.name for release in releases)
    print(f"serving {names} on {path} with {releases[0].session.runtime}", flush=True)
    while not stop.is_set():
        for task in running:
            if task.done():
                task.result()  # none of them ends by itself: raise what ended it
        try:
            async with asyncio.timeout(WINDOW_SECONDS):
                await stop.wait()
        except TimeoutError:
            monitor.close(wall_us() // 1000)
            monitor.take_samples()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    server.close()
    await engine.close()
    watchdog.stop()
    path.unlink(missing_ok=True)


def _log_in(folder: Path) -> PredictionLog:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfiguration(f"cannot write to {folder}: {error.strerror}") from error
    return PredictionLog(folder, max_bytes=LOG_BYTES)


def _opened(bundle: Path, target: str | None) -> LoadedRelease:
    manifest = folders.read(bundle)
    folders.check(bundle, manifest)
    return LoadedRelease.open(bundle, target_choice.chosen(manifest, target))


def _refuse_twins(releases: Sequence[LoadedRelease]) -> None:
    seen: dict[str, LoadedRelease] = {}
    for release in releases:
        twin = seen.setdefault(release.ref.model, release)
        if twin is not release:
            raise InvalidConfiguration(
                f"{twin.ref.name} and {release.ref.name} are the same model; serve one of them"
            )


def _status(engine: Engine) -> dict[str, str | int | float | bool | None]:
    targets = [lane.active.target for lane in engine.lanes if lane.active is not None]
    return {"target": ", ".join(dict.fromkeys(targets)), **standing.described(engine)}
