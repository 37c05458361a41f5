"""A worker trains a model again for a real server: damaged labels are refused, good data published.

In the bad week the labeller of left wrists always said "moving". Accuracy on the rows that came
since rises with it, on all rows and on the left wrist: only rows that were kept before tell.
"""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import publish

from converters import building, incumbent, publishing
from converters.building import BuildRequest
from converters.data.dataset import Float32
from converters.pipeline import Quiet
from edge_core import outputs
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle.manifest import FEATURES, GOLDEN
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator
from edge_core.messages import codec, topics
from edge_core.messages.telemetry import Sample
from edge_core.release import ReleaseRef
from fleet_client.transport import Refused
from fleet_server.storage import releases
from fleet_server.storage.database import Database
from fleet_server.storage.releases import InProduction
from tests.simulators.processes import command, wait_for
from tests.simulators.server import FleetServer

RECIPE = Path(__file__).parents[1] / "simulators" / "wrist_recipe"
MODEL = "wrist-motion"


class Line:
    """A server, a release in production, and a recipe whose data grow."""

    def __init__(self, folder: Path, server: FleetServer) -> None:
        self.folder = folder
        self.server = server
        self.recipe = folder / "recipes" / "wrist_motion"
        shutil.copytree(RECIPE, self.recipe)
        self.first = self._first()

    def weeks(self, *kinds: str) -> None:
        (self.recipe / "weeks.json").write_text(json.dumps(kinds))

    def work(self, *more: str) -> subprocess.CompletedProcess[str]:
        """One request, by a worker as a process of its own."""
        token = self.folder / "worker.token"
        if not token.exists():
            told = [*command("serinus-server"), "token", "worker", "--role", "ci"]
            made = subprocess.run(
                [*told, "--config", str(self.server.settings)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            token.write_text(made.stdout)
        return subprocess.run(
            [
                *command("serinus-convert"), "worker", str(self.folder / "recipes"), "--once",
                "--server", self.server.url, "--token-file", str(token),
                "--repository", str(self.server.repository), "--keys", str(self.server.keys),
                "--work", str(self.folder / "work"), "--data", str(self.folder / "data"),
                "--cache", str(self.folder / "cache"), *more,
            ],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def sampled(self, name: str, window: Float32) -> Sample:
        """An answer of the first release, as a device would send it."""
        bundle = self.folder / "first"
        manifest = folders.read(bundle)
        definition = definitions.parse((bundle / FEATURES).read_bytes())
        evaluator = Evaluator(definitions.of_windows(definition))
        variant = manifest.variants[0]
        logits = incumbent.answer(bundle, manifest, variant, window)
        assert logits is not None
        return Sample(
            device="wrist-1", prediction_id=name, at_ms=time.time_ns() // 1_000_000,
            release=self.first, target=variant.target, arm="incumbent",
            slices={"side": "left"}, definition=definitions.digest(definition),
            window=window.astype("<f4").tobytes(),
            features=evaluator.evaluate(evaluator.quantise(window)).astype("<f4").tobytes(),
            scores=outputs.probabilities(logits).astype("<f4").tobytes(),
        )  # fmt: skip

    def send(self, *samples: Sample) -> None:
        """Publish them as their device."""
        messages = [
            {"topic": topics.up(each.device, "samples"), "payload": codec.encode(each), "qos": 1}
            for each in samples
        ]
        publish.multiple(messages, "127.0.0.1", self.server.mqtt_port)

    def known(self, name: str) -> bool:
        """Whether the server has stored a sampled prediction."""
        with contextlib.suppress(Refused):
            return bool(self.server.client.prediction(name)["has_sample"])
        return False

    def _first(self) -> ReleaseRef:
        self.weeks("good")
        bundle = self.folder / "first"
        building.build(
            BuildRequest(
                recipe=self.recipe, out=bundle, release="1.0.0",
                key=self.server.keys / "statement.pem", data=self.folder / "data",
                cache=self.folder / "cache",
            ),
            Quiet(),
        )  # fmt: skip
        ref = publishing.publish(
            bundle, self.server.repository, self.server.keys, datetime.now(UTC)
        )
        wait_for(
            lambda: any(row["digest"] == ref.digest for row in self.server.client.releases()),
            seconds=20,
            what="the first release to be listed",
        )
        database = Database(self.server.data / "serinus.sqlite")
        with database.write() as connection:
            row = InProduction(
                model=MODEL, digest=ref.digest, since_ms=0, rollout=None, verdict=None
            )
            releases.put_in_production(connection, row)
        database.close()
        return ref


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("retraining")
    with FleetServer(folder / "server") as server:
        yield Line(folder, server)


def gates_of(line: Line, number: int) -> dict[tuple[str, str | None], dict[str, Any]]:
    report = json.loads((line.folder / "work" / f"request-{number}" / "gates.json").read_text())
    return {(gate["gate"], gate["slice"]): gate for gate in report["gates"]}


def alerts(line: Line) -> list[dict[str, Any]]:
    rows = line.server.client.alerts()
    return [row for row in rows if row["kind"] == "retraining" and row["closed_ms"] is None]


def test_damaged_labels_of_a_minority_are_refused_though_they_raise_the_average(
    line: Line,
) -> None:
    client = line.server.client
    line.weeks("good", "bad")
    asked = client.retrain(MODEL, "a week has passed")
    done = line.work()
    assert done.returncode == 3, done.stderr
    told = client.retrain_request(asked["request"])
    assert told["state"] == "refused"
    found = gates_of(line, asked["request"])
    # What a comparison on the rows that came would have said: better everywhere.
    assert found["below_parent", None]["value"] < -0.02
    assert found["below_parent", "side=left"]["value"] < -0.2
    assert found["below_parent", "side=left"]["outcome"] == "passed"
    # What rows say that were kept before.
    fixed = found["below_parent_fixed", "side=left"]
    assert fixed["outcome"] == "failed"
    assert fixed["value"] > 0.2
    assert found["below_parent_fixed", "side=right"]["outcome"] == "passed"
    refused = {(gate["gate"], gate["slice"]) for gate in told["gates"]}
    assert ("below_parent_fixed", "side=left") in refused
    (alert,) = alerts(line)
    assert "side=left" in alert["title"]
    assert alert["detail"]["severity"] == "page"
    assert [row["version"] for row in client.releases() if row["model"] == MODEL] == ["1.0.0"]


def test_good_data_are_published_and_end_the_alert(line: Line) -> None:
    client = line.server.client
    line.weeks("good", "good")
    asked = client.retrain(MODEL, "labels are repaired")
    done = line.work()
    assert done.returncode == 0, done.stderr
    told = client.retrain_request(asked["request"])
    assert (told["state"], told["release"]) == ("published", f"{MODEL}@1.1.0")
    assert told["gates"] == []
    wait_for(
        lambda: any(row["digest"] == told["digest"] for row in client.releases()),
        seconds=10,
        what="the new release to be listed",
    )
    (made,) = (row for row in client.releases() if row["digest"] == told["digest"])
    assert made["parent"] == f"{MODEL}@1.0.0"
    assert ("below_parent_fixed", "side=left") in {(g["gate"], g["slice"]) for g in made["gates"]}
    assert alerts(line) == []


def test_nothing_new_is_said_and_not_published(line: Line) -> None:
    line.weeks("good")
    asked = line.server.client.retrain(MODEL)
    done = line.work()
    assert done.returncode == 0, done.stderr
    assert line.server.client.retrain_request(asked["request"])["state"] == "unchanged"


def test_a_worker_without_its_release_settings_says_so(line: Line) -> None:
    (line.recipe / "releases" / "1.0.0.toml").rename(line.folder / "1.0.0.toml")
    (line.recipe / "releases" / "0.9.0.toml").write_text("")
    try:
        asked = line.server.client.retrain(MODEL)
        assert line.work().returncode == 2
    finally:
        (line.folder / "1.0.0.toml").rename(line.recipe / "releases" / "1.0.0.toml")
    told = line.server.client.retrain_request(asked["request"])
    assert told["state"] == "failed"
    assert "has no release 1.0.0" in told["outcome"]


def test_a_worker_explains_contested_answers(line: Line) -> None:
    """Also one whose inputs make no sense: a person is told why it has no explanation."""
    client = line.server.client
    bundle = line.folder / "first"
    window = goldens.unpack((bundle / GOLDEN).read_bytes()).raw[:1]
    whole = line.sampled("p-1", window)
    line.send(whole, msgspec.structs.replace(whole, prediction_id="p-2", target="npu-nobody-has"))
    wait_for(lambda: line.known("p-2"), seconds=20, what="the samples to be stored")
    opened = [client.open_appeal(name, "I stood still", label="still") for name in ("p-1", "p-2")]
    numbers = [row["appeal"] for row in opened]
    done = line.work()
    assert done.returncode == 0, done.stderr
    first, second = (client.appeal(number)["explanation"] for number in numbers)
    answers = [row["about"]["prediction"]["predicted"] for row in map(client.appeal, numbers)]
    assert first["note"].startswith(f"answered {answers[0]} (")
    assert "still, which is claimed, has" in first["note"]
    assert first["contributions"]
    assert second["contributions"] == first["contributions"]  # another variant tells the same
    assert f"appeal {numbers[0]}: answered" in done.stdout
    assert "appeal" not in line.work().stdout  # once is enough


def test_nothing_to_do_and_a_wrong_token_are_one_line(line: Line, tmp_path: Path) -> None:
    assert "no request is open" in line.work().stdout
    wrong = tmp_path / "token"
    wrong.write_text("serinus_nonsense")
    refused = line.work("--token-file", str(wrong))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "not known" in refused.stderr
