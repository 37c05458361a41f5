"""History computed anew: the evaluator's bits, whatever is killed, in memory that does not grow."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

from converters import cli
from converters.cli import app
from converters.data import event_log, tables
from converters.data.log_folder import LogFolder
from converters.history import backfill, feature_rows, parts, piecewise
from converters.history.parts import Done
from edge_core.errors import InvalidBundle, InvalidConfiguration, InvalidInput, Unavailable
from edge_core.features.definition import FeatureDefinition
from edge_core.features.over_rows import Registered
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.windowing import FeatureStream
from tests.simulators import history
from tests.simulators.history import REQUESTS, WINDOWS

ROOT = Path(__file__).parents[3]
PART_ROWS = 640


class Unseen:
    """Progress that nobody looks at, or that does something once rows were made."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.total = self.before = self.read = self.rows = 0
        self._then = then

    def begun(self, total: int, read: int) -> None:
        self.total, self.before = total, read

    def advanced(self, read: int, rows: int) -> None:
        self.read += read
        self.rows += rows
        self._then()


def run(
    definition: FeatureDefinition, log: Path, output: Path, seen: Unseen | None = None, **more: Any
) -> Done:
    given = {"part_rows": PART_ROWS, **more}
    request = backfill.Request(definition=definition, log=log, output=output, **given)
    return backfill.run(request, seen or Unseen())


def rows(output: Path) -> pa.Table:
    return pa.concat_tables(parquet.read_table(path) for path in sorted(output.glob("*.parquet")))


def values(table: pa.Table, definition: FeatureDefinition) -> bytes:
    columns = [table.column(name).to_numpy() for name in definition.feature_names]
    return np.stack(columns, axis=1).tobytes()


def bytes_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("part-*"))}


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return history.write_requests(tmp_path_factory.mktemp("log"), 6000, row_group=900)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "samples.parquet"
    return history.write_samples(path, 20_000, row_group=900)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read logs in many pieces; their size is no setting."""
    monkeypatch.setattr(tables, "PIECE_ROWS", 257)
    monkeypatch.setattr(piecewise, "SAVED_ROWS", 400)


@pytest.mark.usefixtures("small_pieces")
def test_rows_of_requests_are_the_evaluators(requests: Path, tmp_path: Path) -> None:
    log = LogFolder(requests, REQUESTS).read().log
    evaluator = RequestEvaluator(REQUESTS)
    expected = evaluator.replay(*log)
    seen = Unseen()
    done = run(REQUESTS, requests, tmp_path / "out", seen, keep=("id", "shop"))
    found = rows(tmp_path / "out")
    assert values(found, REQUESTS) == expected.tobytes()
    assert found.column_names == ["row", "at", "id", "shop", *REQUESTS.feature_names]
    assert found.column("row").to_pylist() == list(range(3000))
    assert found.column("id").to_pylist() == [f"q{number}" for number in range(3000)]
    assert found.column("at").cast(pa.int64()).to_pylist() == np.asarray(log.request["at"]).tolist()
    assert [part.rows for part in done.parts] == [PART_ROWS] * 4 + [3000 - 4 * PART_ROWS]
    assert found.schema.metadata == {
        b"serinus.features_sha256": backfill.digest(REQUESTS).encode(),
        b"serinus.features_v": b"2",
    }
    assert (done.rows, done.read) == (3000, 9000) == (seen.rows, seen.total)
    # Nothing is dropped silently: the same counts, and some of each.
    assert done.totals == {
        name: msgspec.structs.asdict(dropped) for name, dropped in evaluator.dropped.items()
    }
    for kind in ("ahead", "expired", "duplicate"):
        assert done.totals["sales/shop"][kind] > 0


@pytest.mark.usefixtures("small_pieces")
def test_rows_of_windows_are_the_streams(samples: Path, tmp_path: Path) -> None:
    log = event_log.read(samples, WINDOWS.inputs)
    done = run(WINDOWS, samples, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert found.column_names == ["stream", "first_us", "last_us", *WINDOWS.feature_names]
    names = np.array(log.streams)
    for name in set(log.streams):
        stream = FeatureStream(WINDOWS)
        expected = stream.push(log.times_us[names == name], log.samples[names == name])
        mine = found.filter(pa.compute.equal(found.column("stream"), name))
        assert mine.column("last_us").to_pylist() == expected.last_us.tolist()
        assert mine.column("first_us").to_pylist() == expected.first_us.tolist()
        assert values(mine, WINDOWS) == expected.features.tobytes()
        assert done.totals[name] == {"late": stream.late, "gaps": stream.gaps}
        assert stream.late > 0
    assert done.rows == found.num_rows > 2 * PART_ROWS


def test_csv_and_folders_of_files_give_the_same_bytes(
    requests: Path, samples: Path, tmp_path: Path
) -> None:
    run(REQUESTS, requests, tmp_path / "a")
    shutil.copytree(requests, tmp_path / "log")
    csv.write_csv(parquet.read_table(requests / "requests.parquet"), tmp_path / "log/requests.csv")
    (tmp_path / "log/requests.parquet").unlink()
    run(REQUESTS, tmp_path / "log", tmp_path / "b")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    run(WINDOWS, samples, tmp_path / "c")
    (tmp_path / "samples").mkdir()
    table = parquet.read_table(samples)
    for number in range(3):
        part = table.slice(number * 7000, 7000)
        parquet.write_table(part, tmp_path / f"samples/{number}.parquet")
    csv.write_csv(table, tmp_path / "samples.csv")
    for place, log in enumerate(["samples", "samples.csv"]):
        run(WINDOWS, tmp_path / log, tmp_path / f"d{place}")
        assert bytes_of(tmp_path / f"d{place}") == bytes_of(tmp_path / "c")


@pytest.mark.parametrize(
    ("where", "kind", "rows", "least"),
    [
        ("everywhere", "requests", 1100, 25),
        ("everywhere", "samples", 4000, 15),
        ("again", "requests", 1600, 3),
        ("anytime", "requests", 6000, 3),
    ],
)
def test_a_kill_anywhere_loses_no_row_and_doubles_none(
    where: str, kind: str, rows: int, least: int, tmp_path: Path
) -> None:
    module = [sys.executable, "-m", "tests.simulators"]
    log = tmp_path / "log"
    made = [*module[:-1], "tests.simulators.history", kind, str(rows), str(log)]
    subprocess.run(made, check=True, cwd=ROOT)
    arguments = [where, str(tmp_path), "backfill", str(log / "features.json")]
    done = subprocess.run(
        [*module[:-1], "tests.simulators.killed_runs", *arguments, str(log_in(log))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least


def log_in(folder: Path) -> Path:
    return folder / "samples.parquet" if (folder / "samples.parquet").exists() else folder


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from converters import cli
sys.exit(cli.run(sys.argv[2:]))
"""


def test_a_full_disk_leaves_only_what_is_finished(requests: Path, tmp_path: Path) -> None:
    features = history.definition_file(tmp_path, REQUESTS)
    output = tmp_path / "out"
    arguments = ["backfill", str(features), "--input", str(requests), "--output", str(output)]
    whole = subprocess.run(
        [sys.executable, "-c", FULL, "3000", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert whole.returncode == 2
    assert "File too large" in whole.stderr
    assert "run the command again to go on" in whole.stderr
    assert not list(output.glob("*.parquet"))
    assert not (output / parts.DONE).exists()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    run(REQUESTS, requests, tmp_path / "other", part_rows=None)
    assert bytes_of(output) == bytes_of(tmp_path / "other")


def test_an_output_that_cannot_be_made_says_so(requests: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="Not a directory"):
        run(REQUESTS, requests, tmp_path / "file" / "out")
    with pytest.raises(InvalidConfiguration, match="file is a file: name a folder of its own"):
        run(REQUESTS, requests, tmp_path / "file")


def stopped(requests: Path, output: Path) -> None:
    """A run that ends in the middle, as by a person."""

    def stop() -> None:
        if (output / "part-000001.parquet").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(REQUESTS, requests, output, Unseen(stop))
    assert not (output / parts.DONE).exists()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("finish", [False, True])
def test_other_work_is_refused_and_begun_anew_if_asked(
    requests: Path, tmp_path: Path, finish: bool
) -> None:
    output = tmp_path / "out"
    run(REQUESTS, requests, output) if finish else stopped(requests, output)
    before = bytes_of(output)
    other = msgspec.structs.replace(REQUESTS, features=REQUESTS.features[:-1])
    history.write_requests(tmp_path / "log", 6000, seed=8)
    for said, change in (
        ("with other features", {"definition": other}),
        ("from other input", {"log": tmp_path / "log"}),
        ("with another --keep", {"keep": ("id",)}),
    ):
        given: dict[str, Any] = {"definition": REQUESTS, "log": requests} | change
        with pytest.raises(InvalidConfiguration, match=f"begun {said}: name another --output"):
            run(output=output, **given)
        assert bytes_of(output) == before
    done = run(other, requests, output, restart=True)
    assert done.job.features == backfill.digest(other)
    run(other, requests, tmp_path / "fresh")
    assert bytes_of(output) == bytes_of(tmp_path / "fresh")


@pytest.mark.usefixtures("small_pieces")
def test_what_is_finished_is_not_computed_again(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    stopped(requests, output)
    seen = Unseen()
    done = run(REQUESTS, requests, output, seen)
    assert seen.before > 0
    assert seen.before + seen.read == 9000
    seen = Unseen()
    assert run(REQUESTS, requests, output, seen) == done
    assert seen.read == 0


@pytest.mark.usefixtures("small_pieces")
def test_what_is_no_output_of_ours_is_left_alone(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InvalidConfiguration, match=r"other files, such as notes.txt"):
        run(REQUESTS, requests, output)
    (output / "notes.txt").rename(output / "part-000000.parquet")
    with pytest.raises(InvalidConfiguration, match="nothing says whose they are"):
        run(REQUESTS, requests, output, restart=True)
    assert (output / "part-000000.parquet").read_text() == "mine"
    with pytest.raises(InvalidInput, match="_state-000001 is missing"):
        run(REQUESTS, requests, output)


def _no_part(output: Path) -> None:
    (output / "part-000000.parquet").unlink()


def _shorter_part(output: Path) -> None:
    os.truncate(output / "part-000000.parquet", 100)


def _flipped(output: Path) -> None:
    (state,) = output.glob("_state-*")
    data = bytearray(state.read_bytes())
    data[-3] ^= 1
    state.write_bytes(data)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_part, "a part is missing"),
        (_shorter_part, "not those that were written"),
        (_flipped, r"_state-\d+ is not what was written"),
    ],
)
def test_a_damaged_output_is_not_gone_on_with(
    damage: Callable[[Path], None], said: str, requests: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    stopped(requests, output)
    damage(output)
    with pytest.raises(InvalidInput, match=f"{said}; name another --output, or begin it anew"):
        run(REQUESTS, requests, output)
    assert run(REQUESTS, requests, output, restart=True).rows == 3000


def test_a_restart_that_was_killed_is_finished(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(REQUESTS, requests, output)
    (output / parts.CLEARING).touch()
    (output / parts.DONE).unlink()
    (output / "part-000003.parquet").unlink()
    assert run(REQUESTS, requests, output).rows == 3000


def test_two_at_once_are_one_too_many(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another run writes to"):
            run(REQUESTS, requests, output)
    assert run(REQUESTS, requests, output).rows == 3000


@pytest.mark.usefixtures("small_pieces")
def test_a_log_that_is_damaged_inside_can_be_mended_and_gone_on_with(
    requests: Path, tmp_path: Path
) -> None:
    log, output = tmp_path / "log", tmp_path / "out"
    shutil.copytree(requests, log)
    path = log / "events/sales.parquet"
    offset = parquet.read_metadata(path).row_group(3).column(3).data_page_offset
    good = path.read_bytes()
    path.write_bytes(good[:offset] + bytes(200) + good[offset + 200 :])
    with pytest.raises(InvalidInput, match=r"sales.parquet cannot be read"):
        run(REQUESTS, log, output)
    assert (output / "part-000000.parquet").exists()
    assert not (output / parts.DONE).exists()
    path.write_bytes(good)
    seen = Unseen()
    run(REQUESTS, log, output, seen)
    assert seen.before > 0
    run(REQUESTS, requests, tmp_path / "whole")
    assert bytes_of(output) == bytes_of(tmp_path / "whole")
    path.write_bytes(good[:-500])
    with pytest.raises(InvalidInput, match=r"sales.parquet cannot be read"):
        run(REQUESTS, log, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("small_pieces")
def test_a_log_that_changes_meanwhile_is_refused(requests: Path, tmp_path: Path) -> None:
    log, output = tmp_path / "log", tmp_path / "out"
    shutil.copytree(requests, log)
    changed = requests / "requests.parquet"

    def change() -> None:
        table = parquet.read_table(changed)
        parquet.write_table(table, log / "other", compression="none")
        (log / "other").rename(log / "requests.parquet")

    with pytest.raises(InvalidInput, match="changed while it was read"):
        run(REQUESTS, log, output, Unseen(change))
    assert not (output / parts.DONE).exists()


def _reordered(table: pa.Table) -> pa.Table:
    return table.take(pa.array([*range(1, table.num_rows), 0]))


def _unit(table: pa.Table, name: str) -> pa.Table:
    place = table.schema.get_field_index(name)
    field = table.schema.field(name).with_metadata({b"unit": b"furlong"})
    return table.set_column(place, field, table.column(name))


def _text(table: pa.Table, name: str) -> pa.Table:
    words = pa.array(["far"] * table.num_rows)
    return table.set_column(table.schema.get_field_index(name), name, words)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("requests.parquet", _reordered, r"requests.parquet is not in order of at; sort it"),
        ("events/sales.parquet", _reordered, r"sales.parquet is not in order of arrival; sort"),
        ("requests.parquet", lambda t: t.drop_columns(["shop"]), "no column shop"),
        ("events/sales.parquet", lambda t: _unit(t, "price"), "price is in furlong"),
        ("events/sales.parquet", lambda t: _text(t, "price"), "price is string; needed is a num"),
    ],
)
def test_a_log_of_requests_that_does_not_fit_is_refused(
    name: str, change: Callable[[pa.Table], pa.Table], said: str, requests: Path, tmp_path: Path
) -> None:
    shutil.copytree(requests, tmp_path / "log")
    table = parquet.read_table(requests / name)
    parquet.write_table(change(table), tmp_path / "log" / name)
    with pytest.raises(InvalidInput, match=said):
        run(REQUESTS, tmp_path / "log", tmp_path / "out")
    assert not (tmp_path / "out" / parts.DONE).exists()


def _gone(table: pa.Table) -> pa.Table:
    values = np.where(np.arange(table.num_rows) == 300, np.nan, 1.0).astype(np.float32)
    return table.set_column(table.schema.get_field_index("ay"), "ay", pa.array(values))


def _no_stream(table: pa.Table) -> pa.Table:
    names = pa.array([None, *table.column("stream").to_pylist()[1:]], pa.string())
    return table.set_column(table.schema.get_field_index("stream"), "stream", names)


def _nested_stream(table: pa.Table) -> pa.Table:
    names = pa.array([{"name": name} for name in table.column("stream").to_pylist()])
    return table.set_column(table.schema.get_field_index("stream"), "stream", names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["ay"]), "no column ay"),
        (_nested_stream, r"stream is struct<name: string>; needed is a text, or a number"),
        (lambda t: _unit(t, "ay"), "ay is in furlong, the definition has g"),
        (lambda t: _text(t, "ay"), "ay is string; needed is a number"),
        (_gone, r"stream \w+, samples from row 0: NaN or infinity in ay"),
        (_no_stream, "stream is missing in some rows"),
    ],
)
def test_a_log_of_samples_that_does_not_fit_is_refused(
    change: Callable[[pa.Table], pa.Table], said: str, samples: Path, tmp_path: Path
) -> None:
    parquet.write_table(change(parquet.read_table(samples)), tmp_path / "log.parquet")
    with pytest.raises(InvalidInput, match=said):
        run(WINDOWS, tmp_path / "log.parquet", tmp_path / "out")
    assert not (tmp_path / "out" / parts.DONE).exists()


@pytest.mark.parametrize("lacking", ["a", "b"])
def test_streams_are_not_mixed_where_one_file_does_not_name_them(
    lacking: str, samples: Path, tmp_path: Path
) -> None:
    table = parquet.read_table(samples)
    for name, rows in (("a", table.slice(0, 500)), ("b", table.slice(500))):
        part = rows.drop_columns(["stream"]) if name == lacking else rows
        parquet.write_table(part, tmp_path / f"{name}.parquet")
    with pytest.raises(InvalidInput, match=rf"{lacking}.parquet has no column stream"):
        run(WINDOWS, tmp_path, tmp_path / "out")


def test_windows_have_no_columns_to_keep(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--keep subject: a window is made of many samples"):
        run(WINDOWS, samples, tmp_path / "out", keep=("subject",))


def test_a_clock_that_jumps_is_counted(samples: Path, tmp_path: Path) -> None:
    table = parquet.read_table(samples)
    times = table.column("time_us").to_numpy().copy()
    times[10_000:12_000] += 3600 * history.SECOND_US
    changed = table.set_column(0, "time_us", pa.array(times))
    parquet.write_table(changed, tmp_path / "log.parquet")
    done = run(WINDOWS, tmp_path / "log.parquet", tmp_path / "out")
    # Forward once, then back: all that follows is late until the hour is over.
    assert sum(counts["late"] for counts in done.totals.values()) > 7000


def test_nothing_to_compute_gives_no_rows(requests: Path, samples: Path, tmp_path: Path) -> None:
    shutil.copytree(requests, tmp_path / "log")
    asked = parquet.read_table(requests / "requests.parquet")
    parquet.write_table(asked.slice(0, 0), tmp_path / "log/requests.parquet")
    done = run(REQUESTS, tmp_path / "log", tmp_path / "a", keep=("id",))
    assert (done.rows, done.read) == (0, 6000)
    sales = parquet.read_table(requests / "events/sales.parquet")
    parquet.write_table(sales.slice(0, 0), tmp_path / "log/events/sales.parquet")
    assert run(REQUESTS, tmp_path / "log", tmp_path / "b").read == 0
    parquet.write_table(parquet.read_table(samples).slice(0, 0), tmp_path / "none.parquet")
    done = run(WINDOWS, tmp_path / "none.parquet", tmp_path / "c")
    for output, definition in (("a", REQUESTS), ("b", REQUESTS), ("c", WINDOWS)):
        found = rows(tmp_path / output)
        assert found.num_rows == 0
        assert set(definition.feature_names) < set(found.column_names)


def test_a_log_may_end_without_a_request(requests: Path, tmp_path: Path) -> None:
    shutil.copytree(requests, tmp_path / "log")
    asked = parquet.read_table(requests / "requests.parquet")
    parquet.write_table(asked.slice(0, 100), tmp_path / "log/requests.parquet")
    run(REQUESTS, requests, tmp_path / "a")
    done = run(REQUESTS, tmp_path / "log", tmp_path / "b")
    assert (done.rows, done.read) == (100, 6100)
    first = rows(tmp_path / "a").slice(0, 100)
    assert values(rows(tmp_path / "b"), REQUESTS) == values(first, REQUESTS)


def test_a_function_that_is_not_registered_is_refused(requests: Path, tmp_path: Path) -> None:
    function = Registered(
        name="far", inputs=["amount"], function="distance_of_nobody", version=1, sha256="0" * 64
    )
    definition = msgspec.structs.replace(REQUESTS, features=(*REQUESTS.features, function))
    with pytest.raises(InvalidBundle, match="distance_of_nobody version 1, which is not regist"):
        run(definition, requests, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_columns_of_one_name_are_refused(requests: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="two columns would be called at: leave it out"):
        run(REQUESTS, requests, tmp_path / "out", keep=("at",))


@pytest.mark.parametrize("name", ["features", "samples"])
def test_a_kept_column_that_is_called_like_ours_is_not_lost(
    name: str, requests: Path, tmp_path: Path
) -> None:
    shutil.copytree(requests, tmp_path / "log")
    path = tmp_path / "log/requests.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.rename_columns([*table.column_names[:-1], name]), path)
    with pytest.raises(InvalidInput, match=f"--keep {name}: rename the column"):
        run(REQUESTS, tmp_path / "log", tmp_path / "out", keep=(name,))


GROWTH = """
import resource, sys
from pathlib import Path
from converters.history import backfill

class Watched:
    read = quarter = 0
    def begun(self, total, read):
        self.total = total
    def advanced(self, read, rows):
        self.read += read
        if not self.quarter and self.read >= self.total / 4:
            self.quarter = peak()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

watched = Watched()
features, log, output = map(Path, sys.argv[1:])
request = backfill.Request(definition=backfill.load(features), log=log, output=output)
print(backfill.run(request, watched).read, watched.quarter, peak())
"""


@pytest.mark.parametrize(("kind", "count"), [("calm", 600_000), ("samples", 2_000_000)])
def test_memory_does_not_grow_with_the_log(kind: str, count: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = [sys.executable, "-m", "tests.simulators.history", kind, str(count), str(log)]
    subprocess.run(made, check=True, cwd=ROOT)
    given = [str(log / "features.json"), str(log_in(log)), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *given], capture_output=True, text=True, check=True, cwd=ROOT
    )
    read, quarter, whole = map(int, done.stdout.split())
    assert read >= 900_000
    assert whole - quarter < 28 * 1024  # KiB


@pytest.fixture(scope="module")
def new(requests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("new") / "out"
    run(REQUESTS, requests, output, keep=("id",))
    return output


def compared(requests: Path, new: Path, old: Path, *key: str) -> Any:
    request = backfill.Request(
        definition=REQUESTS, log=requests, output=new, keep=("id",), part_rows=PART_ROWS
    )
    return backfill.compare(request, run(REQUESTS, requests, new, keep=("id",)).job, old, key)


def changed(new: Path, path: Path, *, shuffled: bool = False) -> Path:
    """Old values: some rows are gone, one is new, two features differ, one has another name."""
    table = rows(new)
    price = table.column("price_1m").to_numpy().astype(np.float64)
    price[10:20] += 2.5
    idle = table.column("idle").to_numpy().copy()
    idle[5] = np.nan
    table = table.set_column(table.schema.get_field_index("price_1m"), "price_1m", [price])
    table = table.set_column(table.schema.get_field_index("idle"), "idle", [idle])
    table = table.rename_columns([{"is=shop1": "was"}.get(n, n) for n in table.column_names])
    more = table.slice(0, 1)
    more = more.set_column(0, "row", pa.array([5000])).set_column(2, "id", pa.array(["q5000"]))
    table = pa.concat_tables([table.slice(0, 2900), more])
    if shuffled:
        table = table.take(pa.array(np.random.default_rng(1).permutation(table.num_rows)))
    parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("key", [(), ("id",), ("at", "id")])
@pytest.mark.parametrize("bucket", [2**25, 20_000])
def test_old_values_are_compared_in_any_order(
    shuffled: bool,
    key: tuple[str, ...],
    bucket: int,
    requests: Path,
    new: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from converters.history import value_diff

    monkeypatch.setattr(value_diff, "BUCKET_BYTES", bucket)
    old = changed(new, tmp_path / "old.parquet", shuffled=shuffled)
    found = compared(requests, new, old, *key)
    assert (found.rows, found.missing, found.extra) == (2900, 1, 100)
    assert (found.only_before, found.only_after) == (["was"], ["is=shop1"])
    by_name = {entry.feature: entry for entry in found.features}
    assert {name: entry.changed for name, entry in by_name.items() if entry.changed} == {
        "price_1m": 10,
        "idle": 1,
    }
    price = by_name["price_1m"]
    assert price.share == 10 / 2900
    assert price.largest == pytest.approx(2.5, abs=1e-5)
    assert price.mean_before - price.mean_after == pytest.approx(25 / 2900, abs=1e-5)
    assert by_name["idle"].largest == 0
    assert not (new / ".scratch").exists()


def test_windows_are_compared_by_stream_and_time(samples: Path, tmp_path: Path) -> None:
    done = run(WINDOWS, samples, tmp_path / "a")
    request = backfill.Request(
        definition=WINDOWS, log=samples, output=tmp_path / "a", part_rows=PART_ROWS
    )
    found = backfill.compare(request, done.job, tmp_path / "a", ())
    assert found.key == ["stream", "last_us"]
    assert found.rows > 1000
    assert (found.missing, found.extra) == (0, 0)
    assert not any(entry.changed for entry in found.features)


def test_what_cannot_be_compared_is_refused(requests: Path, new: Path, tmp_path: Path) -> None:
    table = rows(new)
    path = tmp_path / "old.parquet"
    parquet.write_table(pa.concat_tables([table, table.slice(7, 1)]), path)
    with pytest.raises(InvalidInput, match="row 7 stands twice; name more columns with --key"):
        compared(requests, new, path)
    with pytest.raises(InvalidConfiguration, match="no column nobody; name with --key"):
        compared(requests, new, path, "nobody")
    parquet.write_table(table.drop_columns(list(REQUESTS.feature_names)), path)
    with pytest.raises(InvalidConfiguration, match="none of the features"):
        compared(requests, new, path)
    parquet.write_table(_text(table, "idle"), path)
    with pytest.raises(InvalidInput, match="idle is string; needed is a number"):
        compared(requests, new, path)
    path.write_bytes(b"PAR1")
    with pytest.raises(InvalidInput, match=r"old.parquet cannot be compared"):
        compared(requests, new, path)
    with pytest.raises(InvalidConfiguration, match="is no Parquet file"):
        compared(requests, new, tmp_path / "none.parquet")
    parquet.write_table(table, path)
    with pytest.raises(InvalidConfiguration, match="--key id,id: id is named twice"):
        compared(requests, new, path, "id", "id")
    with pytest.raises(InvalidConfiguration, match="--key row,idle: idle is a feature"):
        compared(requests, new, path, "row", "idle")
    parquet.write_table(
        pa.Table.from_arrays(
            [*table.columns, table.column("idle")], names=[*table.column_names, "idle"]
        ),
        path,
    )
    with pytest.raises(InvalidInput, match="several columns called idle"):
        compared(requests, new, path)
    (tmp_path / "two").mkdir()
    parquet.write_table(table.slice(0, 5), tmp_path / "two/a.parquet")
    parquet.write_table(table.slice(5).drop_columns(["idle"]), tmp_path / "two/b.parquet")
    with pytest.raises(InvalidInput, match=r"b.parquet cannot be compared: no column idle, which"):
        compared(requests, new, tmp_path / "two")


def test_the_command_tells_what_it_did(requests: Path, new: Path, tmp_path: Path) -> None:
    features = history.definition_file(tmp_path, REQUESTS)
    old = changed(new, tmp_path / "old.parquet")
    arguments = ["backfill", str(features), "--input", str(requests), "--keep", "id"]
    arguments += ["--output", str(tmp_path / "out"), "--old", str(old)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "9,000 rows of the log read, 3,000 made" in done.output
    assert "sales/shop: " in done.output
    assert " ahead" in done.output
    assert "price_1m" in done.output
    assert "2,900 rows compared by row: 2 of 7 features changed" in done.output
    told = CliRunner().invoke(app, [*arguments, "--json"])
    said = json.loads(told.stdout)
    assert said["done"]["rows"] == 3000
    assert said["diff"]["rows"] == 2900


def test_a_person_may_stop_a_run(
    requests: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backfill, "run", stop)
    features = history.definition_file(tmp_path, REQUESTS)
    arguments = ["backfill", str(features), "--input", str(requests), "--output", "out"]
    assert cli.run(arguments) == 130
    assert "finished parts are in out: run the command again to go on" in capsys.readouterr().err


def test_a_state_of_another_serinus_says_what_to_do(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with parts.opened(output, job(requests)) as opened:
        opened.save(msgspec.structs.replace(opened.state, work=msgspec.msgpack.encode((b"?", {}))))
    with pytest.raises(InvalidInput, match=r"cannot go on: .*; begin it anew with --restart"):
        run(REQUESTS, requests, output)


def job(requests: Path) -> parts.Job:
    request = backfill.Request(
        definition=REQUESTS, log=requests, output=requests, part_rows=PART_ROWS
    )
    rows = feature_rows.opened(requests, REQUESTS)
    return backfill.job_of(request, rows, command="backfill")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--key", "id"], "--key says how to compare with --old"),
        (["--old", "out/."], "new values would be compared with themselves"),
        (["--dask", "local"], "--dask and --partitions belong together"),
        (["--partitions", "2"], "--dask and --partitions belong together"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["backfill", "features.json", "--input", "log", "--output", "out"]
    assert cli.run([*given, *options]) == 1
    assert said in capsys.readouterr().err


def test_features_may_come_from_a_bundle(tmp_path: Path) -> None:
    from tests.simulators.tiny_bundle import DEFINITION, tiny_bundle

    bundle = tiny_bundle(tmp_path / "bundle")
    assert backfill.load(bundle) == DEFINITION
    (bundle / "features.json").write_bytes(b"{}")
    with pytest.raises(InvalidBundle, match=r"features.json"):
        backfill.load(bundle)
    with pytest.raises(InvalidConfiguration, match=r"there is no .*nothing.toml"):
        backfill.load(tmp_path / "nothing.toml")
    with pytest.raises(InvalidBundle, match="no bundle at"):
        backfill.load(tmp_path / "nothing")


def test_pieces_of_windows_fit_into_memory(samples: Path) -> None:
    wide = msgspec.structs.replace(
        WINDOWS, window=msgspec.structs.replace(WINDOWS.window, samples=4000, hop=1)
    )
    assert feature_rows.WindowRows(samples, wide).piece_rows == 4000
    assert feature_rows.WindowRows(samples, WINDOWS).piece_rows == tables.PIECE_ROWS
