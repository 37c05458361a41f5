"""Devices that speak the real messages over real MQTT, with an accuracy that a test chooses.

They do at once whatever the server wants, and never compute a model: right and wrong answers are
drawn, so that a test can make one release worse than another on one side.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_core.features import definition as definitions
from edge_core.features import evaluation
from edge_core.features.window_definition import WindowDefinition
from edge_core.messages import codec, topics, windows
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import (
    TAG_BYTES,
    Online,
    PairedCounts,
    Refusal,
    ReportedState,
    Sample,
    StatsWindow,
)
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats.histogram import Layout

LATENCY_BINS = 24

Accuracy = Callable[[ReleaseRef, str], float]
"""(release, side) -> share of right answers."""


class World(msgspec.Struct, kw_only=True):
    """What all simulated devices share; a test may change it while they run."""

    accuracy: Accuracy
    definition: WindowDefinition
    layout: Layout
    slices: tuple[tuple[str, tuple[str, ...]], ...] = (("side", ("left", "right")),)
    """What every release declares."""
    target: str = "cpu-x86_64-ort"
    rows: int = 20
    """Rows of one window."""
    agreement: float = 0.5
    """How much the errors of two releases fall on the same rows, 0 to 1."""
    shift: float = 0.0
    """Share of every input's values that fall outside of the reference's range."""
    errors: Mapping[str, float] = {}
    """Version -> share of rows that the model could not answer."""
    labels: bool = True
    """Whether the true answers become known."""
    refuses: frozenset[str] = frozenset()
    """Versions that every device refuses."""

    def schema(self, release: ReleaseRef) -> WindowSchema:
        """How windows of a release are packed."""
        channels = self.layout.reference.channels
        samples = self.definition.window.samples
        return WindowSchema(
            release=release,
            targets=(self.target,),
            slices=self.slices,
            sizes=tuple(channel.size for channel in channels),
            confidence_size=self.layout.confidence_size,
            epsilon=None,
            values=tuple(samples if c.kind == "input" else 1 for c in channels),
        )


class SimulatedDevice:
    """One device: a paho client, a reported state and a sequence of windows."""

    def __init__(self, name: str, side: str, world: World, port: int, seed: int) -> None:
        self.name = name
        self.side = side
        self.world = world
        self.desired: DesiredState | None = None
        self.rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._sequence = 0
        self._previous: ReleaseRef | None = None
        self._refusals: list[Refusal] = []
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"device-{name}", clean_session=False
        )
        self._client.will_set(
            topics.up(name, "online"), codec.encode(Online(device=name, online=False)), 1, True
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port, keepalive=10)
        self._client.loop_start()

    def publish(self, kind: topics.UpKind, payload: bytes, *, retain: bool = False) -> None:
        """Send raw bytes as this device."""
        self._client.publish(topics.up(self.name, kind), payload, qos=1, retain=retain)

    def send(self, window: StatsWindow) -> None:
        """Send one window as it travels."""
        packed = windows.pack(window, self.world.schema(window.release))
        self.publish("stats", codec.encode(packed))

    def stop(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def tick(self) -> None:
        """Send one window for each release that runs."""
        with self._lock:
            desired = self.desired
        if desired is None or self._active(desired) is None:
            return
        active, shadow = self._active(desired), desired.shadow
        assert active is not None
        right, other = self._draw(active), None
        self._window(active, desired.arm, desired.rollout, right)
        if shadow is not None and shadow.version not in self.world.refuses:
            same = self.rng.random(self.world.rows) < self.world.agreement
            fresh = self._draw(shadow)
            other = np.where(same, self._coupled(active, shadow, right), fresh)
            self._window(shadow, "shadow", desired.rollout, other, beside=(active, right))
        if self._sequence % 5 == 0:
            self._sample(active, desired)

    def window(self, release: ReleaseRef, **changes: Any) -> StatsWindow:
        """Make a window of this device, with a sequence number of its own."""
        now = time.time_ns() // 1_000_000
        self._sequence += 1
        plain = StatsWindow(
            device=self.name,
            epoch="simulated",
            sequence=self._sequence,
            opened_ms=now - 2000,
            closed_ms=now,
            release=release,
            target=self.world.target,
            arm="incumbent",
            slices={"side": self.side},
        )
        return msgspec.structs.replace(plain, **changes)

    def _active(self, desired: DesiredState) -> ReleaseRef | None:
        wanted = desired.active
        refused = wanted is not None and wanted.version in self.world.refuses
        return self._previous if refused else wanted

    def _draw(self, release: ReleaseRef) -> np.ndarray:
        return self.rng.random(self.world.rows) < self.world.accuracy(release, self.side)

    def _coupled(self, active: ReleaseRef, shadow: ReleaseRef, right: np.ndarray) -> np.ndarray:
        """Answers of the shadow that err where the active release errs, as far as they can."""
        a = self.world.accuracy(active, self.side)
        b = self.world.accuracy(shadow, self.side)
        draw = self.rng.random(len(right))
        if b <= a:
            return right & (draw < b / max(a, 1e-9))
        return right | (draw < (b - a) / max(1 - a, 1e-9))

    def _window(
        self,
        release: ReleaseRef,
        arm: str,
        rollout: str | None,
        right: np.ndarray,
        beside: tuple[ReleaseRef, np.ndarray] | None = None,
    ) -> None:
        rows = len(right)
        errors = int(self.rng.binomial(rows, self.world.errors.get(release.version, 0.0)))
        latency = np.zeros(LATENCY_BINS, "<i8")
        latency[7] = rows
        window = self.window(
            release,
            arm=arm,
            rollout=rollout,
            rows=rows,
            errors=errors,
            counts=self._counts(rows),
            latency=latency.tobytes(),
            right=self._labels(int(right.sum())),
            wrong=self._labels(int(rows - right.sum())),
        )
        if beside is not None:
            paired = _paired(beside[1], right) if self.world.labels else PairedCounts(agree=rows)
            window = msgspec.structs.replace(
                window, paired=paired, paired_with=beside[0].digest[: 2 * TAG_BYTES]
            )
        self.send(window)

    def _labels(self, count: int) -> bytes:
        place = self.world.layout.slice_of("confidence")
        labels = np.zeros(place.stop - place.start, "<i8")
        labels[1] = count if self.world.labels else 0
        return labels.tobytes()

    def _counts(self, rows: int) -> bytes:
        layout = self.world.layout
        merged = np.zeros(layout.total, "<i8")
        for channel in layout.reference.channels:
            values = rows * (self.world.definition.window.samples if channel.kind == "input" else 1)
            weights = np.array(channel.counts, float) / sum(channel.counts)
            drawn = self.rng.multinomial(values, weights)
            if channel.kind == "input" and self.world.shift:
                moved = self.rng.binomial(drawn, self.world.shift)
                drawn = drawn - moved
                drawn[-2] += moved.sum()
            merged[layout.slice_of(channel.name)] = drawn
        return merged.tobytes()

    def _sample(self, release: ReleaseRef, desired: DesiredState) -> None:
        definition = self.world.definition
        shape = (1, definition.window.samples, len(definition.inputs))
        window = self.rng.normal(0, 0.5, shape).astype("<f4")
        features = evaluation.evaluate(definition, evaluation.quantise(definition, window))
        sample = Sample(
            device=self.name,
            prediction_id=f"{self.name}-{self._sequence}",
            at_ms=time.time_ns() // 1_000_000,
            release=release,
            target=self.world.target,
            arm=desired.arm,
            slices={"side": self.side},
            definition=definitions.digest(definition),
            window=window.tobytes(),
            features=features.astype("<f4").tobytes(),
            scores=np.array([0.5, 0.3, 0.2], "<f4").tobytes(),
        )
        self.publish("samples", codec.encode(sample))

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(topics.down(self.name, "desired"), qos=1)
        self.publish("online", codec.encode(Online(device=self.name, online=True)), retain=True)
        self._report()

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        with self._lock:
            before, self.desired = self.desired, codec.decode(DesiredState, message.payload)
            if before is not None and before.active != self.desired.active:
                self._previous = self._active(before)
            for wanted in (self.desired.active, self.desired.shadow):
                self._maybe_refuse(wanted)
        self._report()

    def _maybe_refuse(self, wanted: ReleaseRef | None) -> None:
        if wanted is not None and wanted.version in self.world.refuses:
            refusal = Refusal(
                release=wanted, reason="self-test failed", at_ms=time.time_ns() // 10**6
            )
            self._refusals = [r for r in self._refusals if r.release != wanted] + [refusal]

    def _report(self) -> None:
        desired = self.desired
        active = self._active(desired) if desired else None
        shadow = desired.shadow if desired else None
        refused = shadow is not None and shadow.version in self.world.refuses
        failed = refused or (desired is not None and active != desired.active)
        state = ReportedState(
            device=self.name,
            at_ms=time.time_ns() // 1_000_000,
            target=self.world.target,
            runtime="simulated",
            slices={"side": self.side},
            desired_revision=desired.revision if desired else 0,
            active=active,
            previous=self._previous,
            shadow=None if refused else shadow,
            update="failed" if failed else "committed" if active else "idle",
            reason="self-test failed" if failed else "",
            refusals=self._refusals,
        )
        self.publish("state", codec.encode(state), retain=True)


class SimulatedFleet:
    """Devices on alternating sides that send a window each every ``interval`` seconds."""

    def __init__(self, devices: int, world: World, port: int, *, interval: float) -> None:
        self.world = world
        self.devices = [
            SimulatedDevice(f"device-{i:02d}", ("left", "right")[i % 2], world, port, i)
            for i in range(devices)
        ]
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for device in self.devices:
            device.stop()

    def running(self) -> set[str | None]:
        """Versions that the devices were told to run."""
        return {
            d.desired.active.version if d.desired and d.desired.active else None
            for d in self.devices
        }

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            for device in self.devices:
                device.tick()


def _paired(active: np.ndarray, shadow: np.ndarray) -> PairedCounts:
    return PairedCounts(
        agree=int((active & shadow).sum()),
        disagree=int(len(active) - (active & shadow).sum()),
        both_right=int((active & shadow).sum()),
        only_active_right=int((active & ~shadow).sum()),
        only_shadow_right=int((~active & shadow).sum()),
        both_wrong=int((~active & ~shadow).sum()),
    )


def by_version(accuracy: Mapping[str, float | Mapping[str, float]]) -> Accuracy:
    """Accuracy by version, and by side where a version has one for each."""

    def of(release: ReleaseRef, side: str) -> float:
        found = accuracy[release.version]
        return found[side] if isinstance(found, Mapping) else found

    return of
