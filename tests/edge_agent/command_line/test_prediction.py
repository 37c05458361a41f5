"""``serinus-agent prediction``: which release gave an answer."""

import json
import subprocess
from pathlib import Path

import pytest

from edge_agent.client import AgentClient
from edge_agent.command_line import prediction_view
from edge_agent.serving.prediction_log import NAME, Line
from tests.simulators.processes import Process, command
from tests.simulators.tiny_bundle import TARGET, tiny_bundle, tiny_rows

BAD_INPUT = 2
LINE = Line(
    at_us=1_700_000_000_123_000,
    token="5f3a9c01",
    first=40,
    rows=5,
    model="tiny",
    version="1.0.0",
    digest="ab" * 32,
    target=TARGET,
    runtime="onnxruntime 1.23 (CPU)",
    arm="incumbent",
    slices={"side": "left"},
    cached=2,
    consumers={"uid:7/camera": 3},
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command("serinus-agent"), "prediction", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def facts(page: str) -> dict[str, str]:
    return {line[:13].strip(): line[13:].strip() for line in page.splitlines()}


def test_an_answer_is_looked_up_by_its_id(tmp_path: Path) -> None:
    bundle, path, folder = (
        tiny_bundle(tmp_path / "b"),
        tmp_path / "a.sock",
        tmp_path / "new" / "log",
    )
    arguments = ["serve", str(bundle), "--socket", str(path), "--log-folder", str(folder)]
    with Process([*command("serinus-agent"), *arguments], tmp_path / "agent.log") as agent:
        agent.wait_for_text("serving tiny-motion@1.0.0", seconds=20)
        with AgentClient(path) as client:
            answer = client.predict(tiny_rows(3)[0])[1]
            client.status()  # lines are written once the answers are sent
    done = run(answer.id, "--log-folder", str(folder))
    assert done.returncode == 0, done.stderr
    said = facts(done.stdout)
    assert said["release"] == f"{answer.model}@{answer.version}"
    assert (said["digest"], said["target"]) == (answer.digest, answer.target)
    assert (said["runtime"], said["served by"]) == (answer.runtime, answer.served_by)
    assert said["arm"] == "incumbent"
    assert said["asked by"].startswith("uid:")
    found = json.loads(run(answer.id, "--log-folder", str(folder), "--json").stdout)
    assert (found["id"], found["digest"], found["rows"]) == (answer.id, answer.digest, 3)


def test_the_settings_say_where_the_log_is(tmp_path: Path) -> None:
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'device = "d1"\ntarget = "{TARGET}"\nstate_dir = "{tmp_path}"\n'
        f'[serving]\nsocket = "{tmp_path}/a.sock"\n'
    )
    line = {field: getattr(LINE, field) for field in LINE.__struct_fields__}
    (tmp_path / NAME).write_text(json.dumps(line) + "\n")
    done = run("5f3a9c01-2b", "--config", str(settings))
    assert done.returncode == 0, done.stderr
    assert facts(done.stdout)["release"] == "tiny@1.0.0"
    for wrong, said in (("5f3a9c01-2d", "knows no prediction"), ("x", "is no prediction id")):
        done = run(wrong, "--config", str(settings))
        assert (done.returncode, "Traceback" in done.stderr) == (BAD_INPUT, False)
        assert said in done.stderr


def test_what_the_rows_of_a_batch_do_not_share_stands_there_as_counts() -> None:
    said = facts(prediction_view.page("5f3a9c01-2b", LINE))
    assert said["served by"] == "model, or cache for 2 of 5 rows"
    assert said["asked by"] == "uid:7/camera (3 of 5 rows) or nobody known (2 of 5 rows)"
    assert said["slices"] == "side=left"
    assert said["when"] == "2023-11-14T22:13:20.123+00:00"
    assert said["answered with"] == "4 other rows"


@pytest.mark.parametrize(
    ("cause", "cached", "served_by"),
    [("breaker", 0, "fallback, breaker"), ("", 1, "cache"), ("", 0, "model")],
)
def test_who_served_and_why(cause: str, cached: int, served_by: str) -> None:
    arm = "fallback" if cause else "incumbent"
    line = Line(
        **{
            **{field: getattr(LINE, field) for field in LINE.__struct_fields__},
            "rows": 1,
            "arm": arm,
            "cause": cause,
            "cached": cached,
        }
    )
    assert facts(prediction_view.page("5f3a9c01-28", line))["served by"] == served_by
