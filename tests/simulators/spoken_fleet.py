"""Services on their own, a clock that a test moves, and devices whose messages are handed over.

Nothing runs in the background: a test says what each device reports and when one decides.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from edge_core.messages import codec, topics
from edge_core.messages import windows as messages
from edge_core.messages.telemetry import (
    Arm,
    PairedCounts,
    Refusal,
    ReportedState,
    StatsWindow,
    UpdateState,
)
from edge_core.release import ReleaseRef
from edge_core.stats.histogram import Kind
from fleet_server.config import ServerConfig
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.ingest import Inbound
from fleet_server.services.rollout_views import RolloutView
from fleet_server.services.suite import Services
from fleet_server.storage import desired_states, devices, drift, releases, rollouts
from fleet_server.storage.desired_states import Desired
from fleet_server.storage.devices import Device
from fleet_server.storage.drift import PeriodCounts, PeriodKey
from fleet_server.storage.releases import InProduction
from tests.simulators.tiny_bundle import TARGET


class SpokenFleet:
    """Devices that say exactly what a test lets them say."""

    def __init__(self, place: Path | ServerConfig, clock: Any) -> None:
        """Open services in a folder, or as settings say."""
        self.config = ServerConfig(data_dir=str(place)) if isinstance(place, Path) else place
        self.clock = clock
        self.services = Services.open(self.config, clock)
        self.watch = RepositoryWatch(self.config, self.services.catalog)
        self.refs: dict[str | None, ReleaseRef] = {}
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.services.database.close()

    def approve(self, ref: ReleaseRef) -> ReleaseRef:
        """Take over a release that was published."""
        self.watch.look()
        self.refs[ref.digest] = ref
        return ref

    def produce(self, ref: ReleaseRef, names: Sequence[str]) -> None:
        """Put a release in production, running on these devices."""
        row = InProduction(
            model=ref.model, digest=ref.digest, since_ms=0, rollout=None, verdict=None
        )
        with self.services.database.write() as connection:
            releases.put_in_production(connection, row)
        for name in names:
            self.report(name, active=ref, update="committed")

    def report(
        self,
        name: str,
        *,
        active: ReleaseRef | None = None,
        shadow: ReleaseRef | None = None,
        update: UpdateState = "idle",
        revision: int = 0,
        reason: str = "",
        refusals: Sequence[Refusal] = (),
        troubles: Sequence[str] = (),
        slices: Mapping[str, str] | None = None,
    ) -> None:
        """Hand over one device's state."""
        state = ReportedState(
            device=name,
            at_ms=self.clock(),
            target=TARGET,
            runtime="none",
            desired_revision=revision,
            active=active,
            shadow=shadow,
            update=update,
            reason=reason,
            refusals=list(refusals),
            troubles=list(troubles),
            slices=dict(slices or {}),
        )
        self.say(topics.up(name, "state"), codec.encode(state))

    def say(self, topic: str, payload: bytes) -> None:
        """Hand one message over."""
        self.services.ingest.take([Inbound(topic=topic, payload=payload)])

    def refuse(self, name: str, ref: ReleaseRef, reason: str = "its self-test fails") -> None:
        """A device says that it will not install a release."""
        revision = self.wishes()[name].revision
        refusal = Refusal(release=ref, reason=reason, at_ms=self.clock())
        self.report(name, update="failed", revision=revision, reason=reason, refusals=[refusal])

    def pass_stage(self, rollout: str) -> RolloutView:
        """Everything that a better release gives a canary or ramp stage, on its devices."""
        self.speak(rollout, candidate=(530, 70), incumbent=(450, 150))
        self.decide(1)
        return self.services.rollouts.one(rollout)

    def speak(
        self, rollout: str, *, candidate: tuple[int, int], incumbent: tuple[int, int]
    ) -> None:
        """A window of each release that a canary's or ramp's devices run: rows (right, wrong)."""
        shown = self.services.rollouts.one(rollout)
        with self.services.database.read() as connection:
            roles = rollouts.roles(connection, rollout, len(shown.stages) - 1)
        new, old = self.refs[shown.digest], self.refs[shown.incumbent_digest]
        both, neither = min(candidate[0], incumbent[0]) - 10, min(candidate[1], incumbent[1]) - 10
        paired = PairedCounts(
            agree=both + neither, disagree=sum(candidate) - both - neither, both_right=both,
            only_active_right=candidate[0] - both, only_shadow_right=incumbent[0] - both,
            both_wrong=neither,
        )  # fmt: skip
        self._sequence += 1
        for name, role in roles.items():
            if role == "candidate":
                self._labelled(name, new, "candidate", rollout, candidate)
                self._labelled(name, old, "shadow", rollout, incumbent, paired)
            elif role == "control":
                self._labelled(name, old, "control", rollout, incumbent)

    def pass_nothing(self) -> None:
        """Every device of the newest rollout answers a few rows, of which no label is known."""
        shown = self.services.rollouts.every()[0]
        with self.services.database.read() as connection:
            roles = rollouts.roles(connection, shown.rollout, len(shown.stages) - 1)
        self._sequence += 1
        for name, role in roles.items():
            if role == "candidate":
                ref = self.refs[shown.digest]
                self._labelled(name, ref, "candidate", shown.rollout, (0, 0), rows=100)

    def _labelled(
        self,
        device: str,
        ref: ReleaseRef,
        arm: Arm,
        rollout: str,
        counts: tuple[int, int],
        paired: PairedCounts | None = None,
        rows: int | None = None,
    ) -> None:
        with self.services.database.read() as connection:
            bins = self.services.catalog.require(connection, ref.digest).layout.confidence_size
        right, wrong = (np.zeros(bins, "<i8") for _ in counts)
        right[1], wrong[1] = counts
        self.window(
            StatsWindow(
                device=device, epoch=f"{arm}-outbox", sequence=self._sequence,
                opened_ms=self.clock() - 2000, closed_ms=self.clock(), release=ref, target=TARGET,
                arm=arm, rollout=rollout, rows=sum(counts) if rows is None else rows,
                right=right.tobytes(), wrong=wrong.tobytes(), paired=paired,
            )
        )  # fmt: skip

    def window(self, window: StatsWindow) -> None:
        """Hand over one window, packed as its release asks."""
        with self.services.database.read() as connection:
            release = self.services.catalog.require(connection, window.release.digest)
        payload = codec.encode(messages.pack(window, release.window_schema))
        self.say(topics.up(window.device, "stats"), payload)

    def wishes(self) -> dict[str, Desired]:
        """Desired state of every device."""
        with self.services.database.read() as connection:
            return desired_states.every(connection)

    def device(self, name: str) -> Device:
        """One device as the server knows it."""
        with self.services.database.read() as connection:
            found = devices.one(connection, name)
        assert found is not None
        return found

    def obey(self, *, but: Sequence[str] = ()) -> None:
        """Every device reports that it runs what it should."""
        for name, wish in self.wishes().items():
            if name not in but:
                self.report(
                    name,
                    active=self.refs.get(wish.active),
                    shadow=self.refs.get(wish.shadow),
                    update="committed",
                    revision=wish.revision,
                )

    def decide(self, seconds: float = 0.0) -> None:
        """Let time pass, then decide."""
        self.clock.now += round(seconds * 1000)
        self.services.rollouts.decide()

    def period(
        self, seen: dict[tuple[str, str], float], rows: int = 1000, kind: Kind = "score"
    ) -> None:
        """One drift period: (digest, arm) -> 0 for the usual scores, 1 for quite other ones.

        ``kind``: of the channels that are as other as that.
        """
        number = self.clock() // round(self.config.windows.drift_period_seconds * 1000)
        with self.services.database.write() as connection:
            for (digest, arm), shift in seen.items():
                release = self.services.catalog.require(connection, digest)
                counts = []
                for channel in release.reference.channels:
                    shares = np.ones(channel.size) / channel.size
                    if channel.kind == kind:
                        shares *= 1 - shift
                        shares[-2] += shift
                    counts.append(np.round(rows * shares).astype(np.int64))
                key = PeriodKey(digest, arm, number, "")
                merged = PeriodCounts(rows=rows, counts=np.concatenate(counts))
                drift.add_to_periods(connection, {key: merged})
        self.clock.now += round(self.config.windows.drift_period_seconds * 1000)
        self.services.drift.observe()

    def alerts(self, kind: str) -> list[str]:
        """Titles of the open alerts of one kind."""
        return [
            alert.title
            for alert in self.services.overview.alerts(200)
            if alert.kind == kind and alert.closed_ms is None
        ]
