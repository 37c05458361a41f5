"""The story of the demo, told by the system: each step waits for what the fleet itself decides."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import msgspec

from fleet_client.client import Refused as ServerRefused
from tests.scenarios.line import MODEL, Line, Refused
from tests.simulators.processes import wait_for

Json = dict[str, Any]

WAIVER = "metric_drop:side=left=only right wrists could be recorded"


class Failed(Exception):
    """A step did not end as told."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that had to hold, and did."""

    step: str
    what: str


def plan(*, min_seconds: float, canary_seconds: float | None = None) -> Json:
    """Make a rollout plan at the demo's pace."""
    return {
        "stages": [
            {"kind": "shadow", "share": 1.0, "min_seconds": min_seconds, "min_devices": 2},
            {
                "kind": "canary",
                "share": 0.25,
                "min_seconds": canary_seconds or min_seconds,
                "min_devices": 2,
            },
            {"kind": "ramp", "share": 0.5, "min_seconds": min_seconds, "min_devices": 2},
        ],
        "rows_per_observation": 3.0,
        "device_timeout_seconds": 60.0,
        "deadline_seconds": 300.0,
    }


class Story:
    """Five steps over one line."""

    def __init__(self, line: Line, say: Callable[[str], None]) -> None:
        self.line = line
        self.say = say
        self.told: list[Told] = []
        self.rollouts: list[Json] = []
        self.drift: Json = {}

    def check(self, step: str, holds: bool, what: str) -> None:
        """Record a claim, or end the story where it does not hold."""
        if not holds:
            raise Failed(f"{step}: expected {what}")
        self.told.append(Told(step=step, what=what))
        self.say(f"    {what}")

    def begin(self) -> None:
        """Server, broker and devices come up; the first release goes to all of them."""
        self.say("1. 1.0.0, a simple model, is built, signed, approved and rolled out to all")
        self.line.start_server()
        self.line.start_devices()
        self.line.publish(self.line.build("1.0.0"))
        wait_for(self._fleet_known, seconds=60, what="every device to report")
        ended = self._roll_out("1.0.0", plan(min_seconds=3))
        self.check("1", ended["state"] == "promoted", "1.0.0 was promoted")
        self.check("1", self._active_everywhere("1.0.0"), "every device runs 1.0.0")

    def improve(self) -> None:
        """A better release is promoted on evidence."""
        self.say("2. 1.1.0, a better model, goes shadow, canary, ramp")
        parent = self.line.folder / "bundles" / "1.0.0"
        self.line.publish(self.line.build("1.1.0", "--parent", parent))
        ended = self._roll_out("1.1.0", plan(min_seconds=6))
        self.check("2", ended["state"] == "promoted", f"1.1.0 was promoted: {ended['reason']}")
        self.check("2", self._active_everywhere("1.1.0"), "every device runs 1.1.0")

    def worsen(self) -> None:
        """A release without evidence for one slice is refused, waived, and rolled back."""
        self.say("3. 1.2.0 was trained and tested on right wrists only")
        try:
            self.line.build("1.2.0")
        except Refused as refused:
            self.check("3", refused.code == 3, "its gate refuses it: no evidence for side=left")
            self.check("3", "side=left" in refused.output, "the refusal names the slice")
        else:
            raise Failed("3: the gate let 1.2.0 through")
        self.line.publish(self.line.build("1.2.0", "--waive", WAIVER))
        ended = self._roll_out("1.2.0", plan(min_seconds=6))
        self.check("3", ended["state"] == "rolled_back", f"rolled back: {ended['reason']}")
        self.check("3", "side=left" in ended["reason"], "the verdict names the slice")
        wait_for(lambda: self._active_everywhere("1.1.0"), seconds=30, what="1.1.0 everywhere")
        self.check("3", True, "every device runs 1.1.0 again")

    def attack(self) -> None:
        """A foreign list and an altered file: devices refuse both and keep serving."""
        self.say("4. Attacks: a list signed by a foreign key, and an altered file")
        bundle = self.line.build("1.1.1")
        before = self.line.counts().predictions
        with self.line.foreign_list("6.6.6") as ref:
            wait_for(
                lambda: len(self._refusing("6.6.6")) == len(self.line.agents),
                seconds=60,
                what="every device to refuse the foreign release",
            )
            self.check("4", True, f"{len(self.line.agents)} devices refused {ref.name}")
        self.line.publish(bundle)
        with self.line.altered("1.1.1"):
            ended = self._roll_out("1.1.1", plan(min_seconds=6))
        self.check("4", ended["state"] == "rolled_back", f"the altered 1.1.1: {ended['reason']}")
        after = self.line.counts()
        self.check("4", after.predictions > before, "all devices kept answering meanwhile")

    def turn(self) -> None:
        """The world changes during a canary: the alert names the axes and blames no release."""
        self.say("5. All sensors are turned upside down while 1.1.1 is a canary")
        rollout = self._start("1.1.1", plan(min_seconds=6, canary_seconds=1000.0))
        self._wait(rollout, lambda row: len(row["stages"]) > 1, 120, "the canary to begin")
        time.sleep(6)  # let canaries settle, so that both arms are seen by the detector
        self.line.turned_file.touch()
        wait_for(lambda: bool(self._drift()), seconds=90, what="a drift alert")
        # A drift that begins within a period touches some figures only in the next ones.
        with contextlib.suppress(TimeoutError):
            wait_for(self._names_both, seconds=20, what="both axes")
        self.drift = self._drift()[0]
        detail = self.drift["detail"]
        self.say(f"    {self.drift['title']}")
        self.check("5", self._names_both(), "the alert names the axes ay and az")
        self.check("5", detail["blamed_release"] is None, "no release is blamed")
        row = self.line.client().rollout(rollout)
        self.check("5", row["state"] == "running", "the canary is not rolled back")

    # How the story waits and looks.

    def _names_both(self) -> bool:
        named = [name for alert in self._drift() for name in alert["detail"]["features"]]
        return all(any(name.startswith(axis) for name in named) for axis in ("ay", "az"))

    def _roll_out(self, version: str, rules: Json) -> Json:
        rollout = self._start(version, rules)
        ended = self._wait(
            rollout,
            lambda row: row["state"] in ("promoted", "rolled_back", "inconclusive"),
            150,
            f"the rollout of {version} to end",
        )
        verdicts = self.line.client().verdicts(rollout)
        self.rollouts.append(
            {
                "release": ended["release"],
                "outcome": ended["state"],
                "stages": ended["stages"],
                "verdicts": verdicts,
                "seconds": ended["seconds"],
            }
        )
        return ended

    def _start(self, version: str, rules: Json) -> str:
        started: Json = {}

        def accepted() -> bool:
            try:
                started.update(self.line.client().start_rollout(f"{MODEL}@{version}", rules))
            except ServerRefused as refused:
                if refused.status != 409:
                    raise
                return False
            return True

        wait_for(accepted, seconds=30, what=f"the server to accept the rollout of {version}")
        return str(started["rollout"])

    def _wait(self, rollout: str, done: Callable[[Json], bool], seconds: float, what: str) -> Json:
        said = ""
        row: Json = {}

        def ready() -> bool:
            nonlocal said, row
            row = self.line.client().rollout(rollout)
            stage = row["stages"][-1]["kind"] if row["stages"] else "-"
            latest = (row["latest"] or {}).get("reason", "")
            now = f"{stage}: {latest}" if row["state"] == "running" else row["state"]
            if now.split(" of ")[0] != said.split(" of ")[0]:
                said = now
                self.say(f"      {now}")
            time.sleep(0.4)
            return done(row)

        wait_for(ready, seconds=seconds, what=what)
        return row

    def _fleet_known(self) -> bool:
        devices = self.line.client().devices()
        return len(devices) >= len(self.line.agents) and all(d["target"] for d in devices)

    def _active_everywhere(self, version: str) -> bool:
        devices = self.line.client().devices()
        return all(d["active"] and d["active"]["name"].endswith(f"@{version}") for d in devices)

    def _refusing(self, version: str) -> list[Json]:
        return [r for r in self.line.client().refusals() if r["name"].endswith(f"@{version}")]

    def _drift(self) -> list[Json]:
        return [alert for alert in self.line.client().alerts() if alert["kind"] == "drift"]

    def report(self) -> Json:
        """Collect what the server knows at the end."""
        client = self.line.client()
        refusals: dict[tuple[str, str], list[str]] = {}
        for row in client.refusals():
            refusals.setdefault((row["name"], row["reason"]), []).append(row["device"])
        fleet = client.fleet()
        return {
            "releases": [
                {key: row[key] for key in ("model", "version", "digest", "gates", "waivers")}
                | {"name": row["model"]}
                for row in client.releases()
            ],
            "rollouts": self.rollouts,
            "refusals": [
                {"what": what, "reason": reason, "devices": sorted(devices)}
                for (what, reason), devices in sorted(refusals.items())
            ],
            "drift": {
                "features": self.drift.get("detail", {}).get("features", []),
                "kind": self.drift.get("detail", {}).get("kind"),
                "blamed_release": self.drift.get("detail", {}).get("blamed_release"),
            },
            "fleet": {
                key: fleet[key]
                for key in ("devices", "predictions", "lost_windows", "parity_mismatches")
            },
            "told": [msgspec.structs.asdict(told) for told in self.told],
        }
