"""A real engine with two models on an event loop of its own thread."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from edge_agent.monitor import Monitor
from edge_agent.serving import socket
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from tests.simulators.tiny_bundle import TARGET, tiny_bundle
from tests.simulators.tiny_requests import BEGIN, SECOND, tiny_requests

T = TypeVar("T")
NOW = BEGIN + 300 * SECOND
WINDOWS, PARCELS = "tiny-motion", "tiny-parcels"


class Served:
    """Both models behind one engine, on a socket below ``folder``."""

    def __init__(self, folder: Path, *models: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.path = folder / "agent.sock"
        makers = {WINDOWS: tiny_bundle, PARCELS: tiny_requests}
        self.releases = {
            name: LoadedRelease.open(makers[name](folder / name), TARGET)
            for name in models or makers
        }
        self.run(self._start())

    async def _start(self) -> None:
        monitor = Monitor(device="d1", sample_every=100, now_ms=1000)
        self.engine = Engine(
            monitor, slices={}, max_queue_rows=8192, now_us=lambda: NOW, token="fuzz", cache_rows=64
        )
        lanes = [self.engine.lanes[0]] + [self.engine.add_lane() for _ in list(self.releases)[1:]]
        for lane, release in zip(lanes, self.releases.values(), strict=True):
            lane.set_active(release, "incumbent", None)
        self.server = await socket.listen(self.path, self.engine, lambda: {"device": "d1"})

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(50)

    def close(self) -> None:
        """Stop the engine, then the loop."""
        self.server.close()
        self.run(self.engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
