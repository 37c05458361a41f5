"""Whole rollouts: a real server, broker and database, and devices that speak the real messages."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_core.bundle import manifest as manifests
from edge_core.stats import histogram
from fleet_client.client import Refused
from fleet_server.domain.drifting.expectation import Settings
from fleet_server.domain.drifting.state import DriftState
from tests.simulators.device import SimulatedFleet, by_version
from tests.simulators.processes import command, wait_for
from tests.simulators.server import FleetServer

DEVICES = 8
PATIENCE = 60.0
ACCURACY = {
    "1.0.0": 0.67,
    "1.1.0": 0.82,
    "1.2.0": {"left": 0.82, "right": 0.50},
    "1.3.0": 0.82,
}
PLAN = {
    "stages": [
        {"kind": "shadow", "share": 1.0, "min_seconds": 0.5},
        {"kind": "canary", "share": 0.25, "min_seconds": 0.5},
        {"kind": "ramp", "share": 0.5, "min_seconds": 0.5},
    ],
    "device_timeout_seconds": 60.0,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FleetServer]:
    with FleetServer(tmp_path) as found:
        for seed, version in enumerate(ACCURACY):
            found.publish(version, seed=seed)
        yield found


@pytest.fixture
def fleet(server: FleetServer) -> Iterator[SimulatedFleet]:
    world = server.world("1.0.0", by_version(ACCURACY))
    with SimulatedFleet(DEVICES, world, server.mqtt_port, interval=0.15) as found:
        wait_for(lambda: reported(server) == DEVICES, seconds=20, what="the devices")
        yield found


def roll_out(server: FleetServer, version: str, plan: dict[str, Any] | None = None) -> str:
    started = server.client.start_rollout(f"tiny-motion@{version}", plan or PLAN)
    rollout: str = started["rollout"]
    return rollout


def promoted(server: FleetServer, version: str) -> dict[str, Any]:
    row = server.wait_for_state(
        roll_out(server, version), "promoted", "rolled_back", seconds=PATIENCE
    )
    assert row["state"] == "promoted", row["reason"]
    return row


def test_a_better_release_is_promoted_and_one_that_is_worse_on_one_side_is_rolled_back(
    server: FleetServer, fleet: SimulatedFleet
) -> None:
    first = promoted(server, "1.0.0")
    assert [stage["kind"] for stage in first["stages"]] == ["canary", "ramp"]

    second = promoted(server, "1.1.0")
    assert [stage["kind"] for stage in second["stages"]] == ["shadow", "canary", "ramp"]
    assert all(stage["outcome"] == "promote" for stage in second["stages"])
    (production,) = server.client.production()
    assert (production["release"], production["devices"]) == ("tiny-motion@1.1.0", DEVICES)
    assert production["decided_by"] == {"rollout": "r2", "verdict": second["decided_by"]}
    assert production["built_from"]["datasets"]
    assert production["built_from"]["snapshot"]["name"] == "tiny"

    third = server.wait_for_state(
        roll_out(server, "1.2.0"), "promoted", "rolled_back", seconds=PATIENCE
    )
    assert third["state"] == "rolled_back"
    assert "side=right" in third["reason"]
    assert fleet.running() == {"1.1.0"}
    assert {d["active"]["name"] for d in server.client.devices()} == {"tiny-motion@1.1.0"}
    assert [a["kind"] for a in server.client.alerts()] == ["rollback"]

    for rollout in ("r1", "r2", "r3"):
        verdicts = server.client.verdicts(rollout)
        assert verdicts
        for verdict in verdicts:
            replayed = server.client.replay(verdict["verdict"])
            assert replayed["same"]
            assert replayed["replayed"]["evidence"] == verdict["evidence"]
    fleet_numbers = server.client.fleet()
    assert fleet_numbers["lost_windows"] == fleet_numbers["parity_mismatches"] == 0
    assert fleet_numbers["rejected"] == 0
    assert fleet_numbers["parity_compared"] > 0


def test_a_server_killed_in_every_stage_still_ends_right(
    server: FleetServer, fleet: SimulatedFleet
) -> None:
    promoted(server, "1.0.0")
    rollout = roll_out(server, "1.1.0")
    killed = set()

    def ended() -> bool:
        row = server.client.rollout(rollout)
        at = (row["state"], len(row["stages"]))
        if at not in killed:
            killed.add(at)
            server.restart()
        return row["state"] in ("promoted", "rolled_back")

    wait_for(ended, seconds=120, what="the rollout to end")
    assert server.client.rollout(rollout)["state"] == "promoted"
    assert {1, 2, 3} <= {stages for _, stages in killed}
    wait_for(lambda: fleet.running() == {"1.1.0"}, seconds=10, what="every device to follow")
    wait_for(lambda: server.client.fleet()["lost_windows"] == 0, seconds=20, what="every window")


def test_a_server_killed_while_it_rolls_back_finishes_the_rollback(
    server: FleetServer, fleet: SimulatedFleet
) -> None:
    promoted(server, "1.0.0")
    rollout = roll_out(server, "1.1.0")
    server.wait_for_state(rollout, "running", seconds=5)
    server.client.roll_back(rollout, "a test")
    server.restart()
    row = server.wait_for_state(rollout, "rolled_back", seconds=30)
    assert "a test" in row["reason"]
    assert fleet.running() == {"1.0.0"}


def test_people_can_pause_resume_and_roll_back(server: FleetServer, fleet: SimulatedFleet) -> None:
    promoted(server, "1.0.0")
    slow = {**PLAN, "stages": [{"kind": "shadow", "share": 1.0, "min_seconds": 600}]}
    rollout = roll_out(server, "1.1.0", slow)
    with pytest.raises(Refused, match="has not ended"):
        roll_out(server, "1.3.0")
    assert server.client.pause(rollout)["state"] == "paused"
    with pytest.raises(Refused, match="cannot pause now"):
        server.client.pause(rollout)
    assert server.client.resume(rollout)["state"] == "running"
    server.client.roll_back(rollout, "changed my mind")
    row = server.wait_for_state(rollout, "rolled_back", seconds=30)
    assert "changed my mind" in row["reason"]
    with pytest.raises(Refused, match="any more"):
        server.client.resume(rollout)
    with pytest.raises(Refused, match="in production already"):
        roll_out(server, "1.0.0")


def test_a_resumed_rollout_gets_its_time_again_and_bad_news_while_it_waits_still_count(
    server: FleetServer, fleet: SimulatedFleet
) -> None:
    promoted(server, "1.0.0")
    fleet.world.labels = False
    rollout = roll_out(server, "1.2.0", PLAN | {"deadline_seconds": 3})
    server.wait_for_state(rollout, "inconclusive", seconds=30)
    assert server.client.resume(rollout)["state"] == "running"
    assert server.client.rollout(rollout)["state"] == "running"
    server.wait_for_state(rollout, "inconclusive", seconds=30)
    fleet.world.labels = True
    row = server.wait_for_state(rollout, "rolled_back", seconds=PATIENCE)
    assert "side=right" in row["reason"]


def test_devices_that_refuse_count_against_the_release(
    server: FleetServer, fleet: SimulatedFleet
) -> None:
    promoted(server, "1.0.0")
    fleet.world.refuses = frozenset({"1.3.0"})
    row = server.wait_for_state(
        roll_out(server, "1.3.0"), "promoted", "rolled_back", seconds=PATIENCE
    )
    assert row["state"] == "rolled_back"
    assert "refused" in row["reason"]
    refusals = server.client.refusals()
    assert {r["name"] for r in refusals} == {"tiny-motion@1.3.0"}
    assert {r["reason"] for r in refusals} == {"self-test failed"}
    assert any(a["kind"] == "refusal" for a in server.client.alerts())


def test_no_labels_is_no_promotion(server: FleetServer, fleet: SimulatedFleet) -> None:
    promoted(server, "1.0.0")
    fleet.world.labels = False
    rollout = roll_out(server, "1.1.0")
    wait_for(
        lambda: "0 devices with labelled rows" in reason(server, rollout),
        seconds=20,
        what="a verdict that waits for labels",
    )
    fleet.world.labels = True
    server.wait_for_state(rollout, "promoted", seconds=PATIENCE)


def test_the_command_follows_a_rollout_to_its_end(
    server: FleetServer, fleet: SimulatedFleet, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN))
    token = server.data / "operator.token"

    def serinus(*arguments: str) -> subprocess.CompletedProcess[str]:
        options = ["--url", server.url, "--token-file", str(token)]
        return subprocess.run(
            [*command("serinus"), *options, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    first = serinus("rollout", "start", "tiny-motion@1.0.0", "--plan", str(plan), "--watch")
    assert first.returncode == 0, first.stderr
    assert "promoted" in first.stdout
    worse = serinus("rollout", "start", "tiny-motion@1.2.0", "--plan", str(plan))
    assert worse.returncode == 0, worse.stderr
    watched = serinus("rollout", "watch")
    assert watched.returncode == 3, watched.stdout + watched.stderr
    assert "side=right" in watched.stdout
    for arguments in (["devices"], ["releases"], ["production"], ["alerts"], ["rollout", "list"]):
        done = serinus(*arguments)
        assert done.returncode == 0, done.stderr
        assert "tiny-motion" in done.stdout
    assert json.loads(serinus("--json", "production").stdout)[0]["release"] == "tiny-motion@1.0.0"
    replayed = serinus("verdict", "replay", "1")
    assert "the same figures again" in replayed.stdout


def test_a_drift_of_the_world_blames_no_release_and_holds_promotions(
    server: FleetServer, fleet: SimulatedFleet
) -> None:
    promoted(server, "1.0.0")
    wait_for(lambda: learned(server), seconds=60, what="the detector to learn")
    fleet.world.shift = 0.5
    wait_for(
        lambda: any(a["kind"] == "drift" for a in server.client.alerts()),
        seconds=60,
        what="a drift alert",
    )
    (alert,) = [a for a in server.client.alerts() if a["kind"] == "drift"]
    assert {"ax", "ay"} <= set(alert["detail"]["features"])
    assert alert["detail"]["blamed_release"] is None
    rollout = roll_out(server, "1.1.0")
    wait_for(
        lambda: "drifting" in reason(server, rollout),
        seconds=30,
        what="a verdict that waits for the world",
    )
    fleet.world.shift = 0.0
    server.wait_for_state(rollout, "promoted", seconds=PATIENCE)


def reason(server: FleetServer, rollout: str) -> str:
    latest = server.client.rollout(rollout)["latest"]
    return str(latest["reason"]) if latest else ""


def test_the_embedded_broker_is_enough_for_a_first_look(tmp_path: Path) -> None:
    with FleetServer(tmp_path, broker="embedded") as server:
        server.publish("1.0.0")
        world = server.world("1.0.0", by_version(ACCURACY))
        with SimulatedFleet(4, world, server.mqtt_port, interval=0.15):
            wait_for(lambda: reported(server) == 4, seconds=20, what="the devices")
            promoted(server, "1.0.0")
        assert "iotcore" in server.process.text()


def reported(server: FleetServer) -> int:
    return sum(device["target"] is not None for device in server.client.devices())


def learned(server: FleetServer) -> bool:
    release = histogram.parse((server.folder / "bundles/1.0.0" / manifests.REFERENCE).read_bytes())
    for state, season in server.rows("SELECT state, season FROM drift"):
        found = DriftState.unpack(state, season or b"", len(release.channels) + 1)
        if found is not None and found.learned[0] > Settings().learning_periods:
            return True
    return False
