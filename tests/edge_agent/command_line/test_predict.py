"""``serinus-agent predict`` beside a serving agent, and what it says of files that do not fit."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.client import AgentClient
from edge_agent.serving.predictions import Prediction
from tests.simulators.processes import Process, command
from tests.simulators.tiny_bundle import CLASSES, tiny_bundle, tiny_rows
from tests.simulators.tiny_requests import story, tiny_requests

BAD_INPUT = 2


def predict(bundle: Path, source: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [*command("serinus-agent"), "predict", str(bundle), "--input", str(source), *more]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("motion") / "bundle")


@pytest.fixture(scope="module")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_requests(tmp_path_factory.mktemp("parcels") / "bundle")


@pytest.fixture
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentClient]:
    """A client of a real agent that serves the bundle whose fixture the test names."""
    bundle, path = request.getfixturevalue(request.param), tmp_path / "agent.sock"
    arguments = [*command("serinus-agent"), "serve", str(bundle), "--socket", str(path)]
    with Process(arguments, tmp_path / "agent.log") as process:
        process.wait_for_text("serving tiny-", seconds=20)
        with AgentClient(path) as client:
            yield client


def same(line: dict[str, Any], answer: Prediction) -> bool:
    """To the last bit: JSON holds a float64 whole."""
    return (
        line["label"],
        line["confidence"],
        list(line["scores"].values()),
        line["served_by"],
        line["digest"],
        line["target"],
    ) == (
        answer.label,
        answer.confidence,
        answer.scores,
        answer.served_by,
        answer.digest,
        answer.target,
    )


@pytest.mark.parametrize("serving", ["motion"], indirect=True)
def test_windows_are_answered_as_serve_answers_them(
    serving: AgentClient, motion: Path, tmp_path: Path
) -> None:
    samples, _ = tiny_rows(150)
    answers = serving.predict(samples)
    np.save(tmp_path / "windows.npy", samples)
    np.savez(tmp_path / "windows.npz", samples=samples, labels=np.arange(150))
    (tmp_path / "windows.jsonl").write_text(
        "".join(json.dumps({"samples": window.tolist()}) + "\n" for window in samples)
    )
    for name in ("windows.npy", "windows.npz", "windows.jsonl"):
        found = lines(predict(motion, tmp_path / name))
        assert [line["row"] for line in found] == list(range(150))
        assert all(same(*pair) for pair in zip(found, answers, strict=True)), name
    assert set(found[0]["scores"]) == set(CLASSES)


@pytest.mark.parametrize("serving", ["motion"], indirect=True)
def test_samples_of_a_table_are_cut_as_pushed_ones_are(
    serving: AgentClient, motion: Path, tmp_path: Path
) -> None:
    samples = tiny_rows(6)[0].reshape(-1, 2)
    times = np.arange(len(samples)) * 20_000 + 1_700_000_000_000_000
    times[30:] += 10_000_000  # a gap, over which no window goes
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_us", "note", "ay", "ax"])
        for time, (ax, ay) in zip(times.tolist(), samples.tolist(), strict=True):
            writer.writerow([time, "x", repr(ay), repr(ax)])
    found = lines(predict(motion, tmp_path / "log.csv"))
    answers = serving.push("wrist", times, samples)
    assert len(found) == len(answers) > 5
    assert all(same(*pair) for pair in zip(found, answers, strict=True))
    assert [(line["first_us"], line["last_us"]) for line in found] == [
        (answer.first_us, answer.last_us) for answer in answers
    ]


@pytest.mark.parametrize("serving", ["parcels"], indirect=True)
def test_requests_see_the_events_that_came_before_them(
    serving: AgentClient, parcels: Path, tmp_path: Path
) -> None:
    log = story(120, 40)
    events, request = log.events, log.request
    with (tmp_path / "parcels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["event_time", "sequence", "arrival", "place", "kind", "weight"])
        for row in range(120):
            weight = float(events.fields["weight"][row])  # type: ignore[index, arg-type]
            writer.writerow(
                [
                    np.asarray(events.times_us)[row],
                    np.asarray(events.sequence)[row],
                    np.asarray(events.arrived_us)[row],
                    events.fields["place"][row],  # type: ignore[index]
                    events.fields["kind"][row] or "",  # type: ignore[index]
                    "" if np.isnan(weight) else repr(weight),
                ]
            )
    sizes = [None if np.isnan(size) else float(size) for size in request["size"]]
    (tmp_path / "requests.jsonl").write_text(
        "".join(
            json.dumps({"at": int(at), "place": place, "size": size}) + "\n"
            for at, place, size in zip(request["at"], request["place"], sizes, strict=True)
        )
    )
    given = f"parcels={tmp_path / 'parcels.csv'}"
    found = lines(predict(parcels, tmp_path / "requests.jsonl", "--events", given))
    arrived = np.asarray(events.arrived_us)
    answers, taken = [], 0
    for row, at in enumerate(request["at"].tolist()):
        count = int(np.searchsorted(arrived, at, side="right"))
        if count > taken:
            some = events.only(np.arange(taken, count))
            serving.observe("parcels", some.times_us, some.sequence, some.fields, some.arrived_us)
            taken = count
        one = {name: column[row : row + 1] for name, column in request.items()}
        answers += serving.ask(one)
    assert all(same(*pair) for pair in zip(found, answers, strict=True))
    without = lines(predict(parcels, tmp_path / "requests.jsonl"))
    assert [line["scores"] for line in without] != [line["scores"] for line in found]


def test_a_table_is_written_whole_into_a_file(motion: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "windows.npy", tiny_rows(3)[0])
    output = tmp_path / "answers.csv"
    done = predict(motion, tmp_path / "windows.npy", "--format", "csv", "--output", str(output))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    on_screen = lines(predict(motion, tmp_path / "windows.npy"))
    assert [row["label"] for row in rows] == [line["label"] for line in on_screen]
    assert [float(row["score.tilt"]) for row in rows] == [
        line["scores"]["tilt"] for line in on_screen
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"windows.npy", "answers.csv"}


def test_requests_without_a_time_are_asked_now(parcels: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text("place,size\np1,20\np2,\n")
    first, second = lines(predict(parcels, tmp_path / "requests.csv"))
    assert first["last_us"] == second["last_us"] > 1_700_000_000_000_000


WINDOWS = [
    ("w.npy", np.zeros((2, 7, 2), np.float32), "shape [2, 7, 2]; needed is [rows, 8, 2]"),
    ("w.npy", np.zeros((2, 8, 3), np.float32), "with the inputs ax, ay"),
    ("w.npy", np.full((2, 8, 2), np.nan, np.float32), "ax"),
    ("w.npy", np.array([["a"] * 2] * 8), "not numbers"),
    ("w.npy", b"noise", "holds no arrays of numbers"),
    ("w.npz", b"PK\x03\x04 noise", "holds no arrays of numbers"),
    ("w.csv", b"ax,az\n1,2\n", "lacks ay; it has ax, az, and needed are ax, ay"),
    ("w.csv", b"ax,ay\n1,2\n3\n", "line 3: 1 values; the first line names 2 columns"),
    ("w.csv", b"ax,ay\n1,x\n", "row 1: ay is 'x', no number"),
    ("w.csv", b"ax,ay\n1,2\n", "completes no window; one has 8 samples"),
    ("w.csv", b"time_us,ax,ay\nnoon,1,2\n", "whole microseconds since 1970"),
    ("w.csv", b"time_us,ax,ay\n99999999999999999999,1,2\n", "whole microseconds since 1970"),
    ("w.csv", b"ax,ax\n1,2\n", "two columns have the same name"),
    ("w.csv", b"", "holds no rows"),
    ("w.csv", b"\xff\xfe", "no UTF-8 text"),
    ("w.jsonl", b"{}\n", "line 1: a window is"),
    ("w.jsonl", b"[[1, 2]]\n[[1], [2]]\n", "no arrays of numbers of one shape"),
    ("w.jsonl", b"{", "line 1 is no JSON"),
    ("w.parquet", b"PAR1", "of no known kind"),
]


@pytest.mark.parametrize(("name", "content", "said"), WINDOWS)
def test_files_that_do_not_fit_are_refused_in_one_line_with_the_fix(
    motion: Path, tmp_path: Path, name: str, content: Any, said: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    refused(predict(motion, path), str(path), said)


REQUESTS = [
    ("r.npy", b"", [], "named fields"),
    ("r.csv", b"at,size\n1,2\n", [], "lacks place"),
    ("r.csv", b"at,place,size\n99999999999999999999,p,2\n", [], "whole microseconds since 1970"),
    ("r.jsonl", b'{"place":"p","size":1,"at":9223372036854775808}', [], "microseconds since 1970"),
    ("r.npz", {"place": np.array("p"), "size": np.ones(1)}, [], "place has 0 axes"),
    ("r.npz", {"place": np.array(["p"]), "size": np.ones((1, 2))}, [], "size has 2 axes"),
    ("r.csv", b"at,place,size\n1,,2\n", [], "place is missing in row 0"),
    ("r.csv", b"place,size\np,1\n", ["--events", "parcels"], "is not STREAM=FILE"),
    ("r.csv", b"place,size\np,1\n", ["--events", "trucks=e.csv"], "the model has parcels"),
    ("r.csv", b"place,size\np,1\n", ["--events", "parcels=none.csv"], "cannot read none.csv"),
    ("r.jsonl", b"[1]\n", [], "line 1 is no object of fields"),
]


@pytest.mark.parametrize(("name", "content", "more", "said"), REQUESTS)
def test_requests_that_do_not_fit_are_refused(
    parcels: Path, tmp_path: Path, name: str, content: Any, more: list[str], said: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.savez(tmp_path / name, **content)
    refused(predict(parcels, tmp_path / name, *more), "serinus-agent: ", said)


def test_what_the_model_does_not_take_is_refused(motion: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", tiny_rows(1)[0])
    refused(predict(motion, tmp_path / "nothing.npy"), "nothing.npy", "No such file")
    more = ["--events", "parcels=e.csv"]
    refused(predict(motion, tmp_path / "w.npy", *more), "sensor windows", "takes no --events")
    more = ["--output", str(tmp_path / "no" / "answers")]
    refused(predict(motion, tmp_path / "w.npy", *more), "cannot write", "answers")
    more = ["--target", "toaster"]
    refused(predict(motion, tmp_path / "w.npy", *more), "toaster", "it has cpu-x86_64-ort")


def test_an_output_that_nobody_reads_ends_without_a_traceback(motion: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", tiny_rows(3000)[0])
    words = [sys.executable, "-m", "edge_agent", "predict", str(motion), "--input"]
    line = " ".join([*words, str(tmp_path / "w.npy"), "| head -n 1"])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == BAD_INPUT, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    for text in said:
        assert text in line
