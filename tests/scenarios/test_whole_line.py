"""A smaller demo: real builds, server, broker and agents, and ``kill -9`` in a rollout."""

from pathlib import Path

from tests.scenarios.line import Line, Scale
from tests.scenarios.story import Story, plan

SMALL = Scale(subjects=(6, 7), copies=2)


def test_a_release_reaches_the_fleet_although_agent_and_server_are_killed(tmp_path: Path) -> None:
    with Line(tmp_path / "line", SMALL) as line:
        story = Story(line, print)
        story.begin()
        line.publish(line.build("1.1.0"))
        rollout = story._start("1.1.0", plan(min_seconds=3))
        story._wait(rollout, lambda row: len(row["stages"]) > 1, 120, "the canary to begin")
        victim = next(iter(line.agents.values()))
        victim.kill()
        line.server.kill()
        victim.start()
        line.server.start()
        line.wait_for_server()
        ended = story._wait(
            rollout, lambda row: row["finished_ms"] is not None, 200, "the rollout to end"
        )
        assert ended["state"] == "promoted", ended["reason"]
        assert story._active_everywhere("1.1.0")
        assert line.client().fleet()["parity_mismatches"] == 0
