"""From a device's model to the server's alert: an embedding that moves while its scores do not."""

from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.inference.session import Float32, Session
from edge_agent.monitor import Batch, Monitor, Role
from edge_agent.serving.release import LoadedRelease
from edge_core import outputs
from edge_core.messages import codec, topics, windows
from fleet_server.services.ingest import Inbound
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import CLASSES, TARGET, tiny_bundle, tiny_rows

COORDINATES = 6
DEVICES = ("d1", "d2", "d3")
ROWS = 150


def seen_within(folder: Path, **changes: Any) -> Path:
    """A tiny bundle with an embedding."""
    return tiny_bundle(folder, coordinates=COORDINATES, **changes)


class Moved:
    """A session whose embeddings are off; its logits are as ever."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.runtime, self.placement = session.runtime, session.placement
        self.absent = session.absent
        self.by = 0.0

    def run(self, rows: Float32) -> Float32:
        answers = self._session.run(rows)
        answers[:, len(CLASSES) :] += np.linspace(-self.by, self.by, COORDINATES, dtype=np.float32)
        return answers


class Devices:
    """Real releases and monitors, whose windows are handed to the server as they travel."""

    def __init__(self, fleet: SpokenFleet, bundle: Path) -> None:
        self.fleet = fleet
        self.release = LoadedRelease.open(bundle, TARGET)
        self.release.session = self.session = Moved(self.release.session)
        now = fleet.clock()
        self._monitors = {n: Monitor(device=n, sample_every=1000, now_ms=now) for n in DEVICES}
        self._period = 0

    def period(self) -> None:
        """Let every device answer and send, and the server look."""
        self._period += 1
        length = round(self.fleet.config.windows.drift_period_seconds * 1000)
        self.fleet.clock.now += length
        for place, (name, monitor) in enumerate(self._monitors.items()):
            monitor.answered(*self._answers(1000 * self._period + place), self.fleet.clock())
            for window in monitor.close(self.fleet.clock()):
                packed = windows.stamped(monitor.packed(window), "ab12", self._period)
                topic = topics.up(name, "stats")
                inbound = Inbound(topic=topic, payload=codec.encode(packed))
                self.fleet.services.ingest.take([inbound])
        self.fleet.services.drift.observe()

    def _answers(self, seed: int) -> tuple[Role, LoadedRelease, Batch]:
        release = self.release
        raw, _ = tiny_rows(ROWS, seed)
        features = release.evaluator.evaluate(release.evaluator.quantise(raw))
        logits, embedding = release.answer(raw, features)
        batch = Batch(
            ids=[f"{seed}-{row}" for row in range(ROWS)],
            raw=raw,
            features=features,
            probabilities=outputs.probabilities(logits),
            embedding=embedding,
            latency_us=np.full(ROWS, 100.0),
            slices={"side": "left"},
        )
        role = Role(release=release.ref, target=TARGET, arm="incumbent", rollout=None)
        return role, release, batch


def test_an_embedding_that_moves_alone_is_told_and_its_return_ends_the_alert(
    fleet: SpokenFleet, repository: Any
) -> None:
    ref = fleet.approve(repository.publish("1.0.0", build=seen_within))
    devices = Devices(fleet, repository.bundles / seen_within.__name__ / "1.0.0")
    assert devices.release.ref == ref
    for _ in range(30):
        devices.period()
        assert not fleet.alerts("drift")
    devices.session.by = 2.0
    for _ in range(4):
        devices.period()
    (title,) = fleet.alerts("drift")
    assert title.startswith("prediction drift in embedding[")
    assert title.endswith("neither inputs nor scores tell of it")
    (alert,) = [a for a in fleet.services.overview.alerts(10) if a.kind == "drift"]
    assert {figure["kind"] for figure in alert.detail["figures"]} == {"embedding"}
    assert alert.detail["response"] == "rethink"
    devices.session.by = 0.0
    for _ in range(4):
        devices.period()
    assert not fleet.alerts("drift")
