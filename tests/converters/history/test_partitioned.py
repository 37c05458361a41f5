"""History computed by a Dask cluster has the bytes of one process, or is refused."""

import importlib.util
import shutil
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from distributed import LocalCluster
from distributed.scheduler import KilledWorker
from pyarrow import parquet
from typer.testing import CliRunner

from converters.cli import app
from converters.data import log_folder
from converters.data.log_folder import LogFolder
from converters.history import backfill, partition_work, partitioned
from converters.history.parts import Done
from edge_core.errors import InvalidConfiguration, InvalidInput, Unavailable
from edge_core.features import columns
from edge_core.features.definition import FeatureDefinition, of_requests
from edge_core.features.logs import Events, Log
from edge_core.features.request_evaluation import RequestEvaluator
from tests.simulators import history
from tests.simulators.history import REQUESTS, WINDOWS

from .test_backfill import PART_ROWS, ROOT, Unseen, bytes_of, run


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A cluster of two worker processes."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        scheduler_kwargs=partitioned.QUIET,
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return history.write_requests(tmp_path_factory.mktemp("log"), 90_000, row_group=20_000, odd=0)


@pytest.fixture(scope="module")
def odd_requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shorter log with events that come late, early or twice."""
    return history.write_requests(tmp_path_factory.mktemp("log"), 10_000)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "samples.parquet"
    return history.write_samples(path, 150_000, row_group=20_000)


def dealt(
    scheduler: str, definition: FeatureDefinition, log: Path, output: Path, **more: Any
) -> Done:
    given = {"part_rows": PART_ROWS * 8, **more}
    partitions = given.pop("partitions", 3)
    request = backfill.Request(definition=definition, log=log, output=output, **given)
    return partitioned.run(request, Unseen(), address=scheduler, partitions=partitions)


def whole(definition: FeatureDefinition, log: Path, output: Path, **more: Any) -> Done:
    return run(definition, log, output, part_rows=PART_ROWS * 8, **more)


@pytest.mark.parametrize(
    ("name", "partitions", "count"),
    [("requests", 3, 9), ("odd_requests", 1, 1), ("odd_requests", 7, 1)],
)
def test_requests_have_the_bytes_of_one_process(
    name: str,
    partitions: int,
    count: int,
    scheduler: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    log = request.getfixturevalue(name)
    one = whole(REQUESTS, log, tmp_path / "one", keep=("id",))
    many = dealt(scheduler, REQUESTS, log, tmp_path / "many", keep=("id",), partitions=partitions)
    assert len(many.parts) == count
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert (many.rows, many.read, many.parts) == (one.rows, one.read, one.parts)
    assert many.totals == one.totals
    names = {path.name for path in (tmp_path / "many").iterdir()}
    assert names == {path.name for path in (tmp_path / "one").iterdir()}


@pytest.mark.parametrize("partitions", [2, 5])
def test_windows_have_the_bytes_of_one_process(
    partitions: int, scheduler: str, samples: Path, tmp_path: Path
) -> None:
    one = whole(WINDOWS, samples, tmp_path / "one")
    many = dealt(scheduler, WINDOWS, samples, tmp_path / "many", partitions=partitions)
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert len(many.parts) > 2
    assert (many.read, many.parts, many.totals) == (one.read, one.parts, one.totals)


def flights(folder: Path) -> tuple[FeatureDefinition, Path]:
    """January, in order of arrival."""
    recipe = ROOT / "firmware_bundles/flight_delay"
    spec = importlib.util.spec_from_file_location("flights_of_january", recipe / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    definition = of_requests(backfill.load(recipe / "features.toml"))
    log = module.log({}).log
    end = np.datetime64("2013-02-01", "us").astype(np.int64)

    def january(moments: Any) -> Any:
        order = np.argsort(moments, kind="stable")
        return order[np.asarray(moments)[order] < end]

    events = {
        name: given.only(january(np.asarray(given.arrived_us)))
        for name, given in log.events.items()
    }
    asked = columns.taken(log.request, january(np.asarray(log.request["at"])))
    log_folder.write(folder, definition, Log(events, asked))
    return definition, folder


def test_a_month_of_flights_by_workers_started_here(tmp_path: Path) -> None:
    definition, log = flights(tmp_path / "log")
    one = run(definition, log, tmp_path / "one", part_rows=None)
    many = dealt("local", definition, log, tmp_path / "many", partitions=2, part_rows=None)
    assert one.rows == many.rows > 26_000
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert many.totals == one.totals
    read = LogFolder(log, of_requests(definition)).read().log
    features = RequestEvaluator(of_requests(definition)).replay(*read)
    found = parquet.read_table(tmp_path / "many/part-000000.parquet")
    mine = np.stack([found.column(n).to_numpy() for n in definition.feature_names], axis=1)
    assert mine.tobytes() == features.tobytes()


@pytest.mark.parametrize("what", ["events", "entities"])
def test_a_store_that_might_drop_something_is_refused(
    what: str, scheduler: str, odd_requests: Path, tmp_path: Path
) -> None:
    (stream,) = REQUESTS.streams
    few = {"events": 3000} if what == "events" else {"entities": 20}
    keep = msgspec.structs.replace(stream.keep, **few)
    small = msgspec.structs.replace(REQUESTS, streams=(msgspec.structs.replace(stream, keep=keep),))
    one = whole(small, odd_requests, tmp_path / "one")
    assert one.totals["sales/shop"]["evicted"] > 0
    said = rf"sales/shop: up to \d+ {what} may be held at once, and the definition keeps"
    with pytest.raises(InvalidInput, match=said) as refused:
        dealt(scheduler, small, odd_requests, tmp_path / "many")
    assert "leave --dask away" in str(refused.value)
    assert not list((tmp_path / "many").glob("*.parquet"))


def test_what_partitions_held_bounds_what_one_store_would_hold() -> None:
    limits = REQUESTS.streams[0].keep
    fits = (limits.entities, limits.events)
    none = (0, 0)

    def told(*held: list[tuple[int, int]]) -> partition_work.Told:
        return partition_work.Told(rows=[], held=list(held), counts={}, read=0)

    partitioned.check_room(REQUESTS, [told([fits, none]), told([none, fits])])
    # At different times they hold no more together.
    partitioned.check_room(REQUESTS, [told([fits, none], [none] * 2), told([none] * 2, [fits] * 2)])
    with pytest.raises(InvalidInput, match=f"up to {limits.events + 1} events"):
        partitioned.check_room(REQUESTS, [told([fits, none]), told([(0, 1), none])])


def test_a_run_that_was_stopped_goes_on(scheduler: str, requests: Path, tmp_path: Path) -> None:
    whole(REQUESTS, requests, tmp_path / "one")
    output = tmp_path / "many"
    request = backfill.Request(
        definition=REQUESTS, log=requests, output=output, part_rows=PART_ROWS * 8
    )

    def stop() -> None:
        if (output / "part-000001.parquet").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        partitioned.run(request, Unseen(stop), address=scheduler, partitions=3)
    before = bytes_of(output)
    with pytest.raises(InvalidConfiguration, match="begun with another --dask or --partitions"):
        backfill.run(request, Unseen())
    with pytest.raises(InvalidConfiguration, match="begun with another --dask or --partitions"):
        partitioned.run(request, Unseen(), address=scheduler, partitions=2)
    assert bytes_of(output) == before
    for number in range(3):
        # What partitions found is not read again: the log may even be gone for them.
        assert (output / f".scratch/{number:04d}/told").exists()
    seen = Unseen()
    partitioned.run(request, seen, address=scheduler, partitions=3)
    assert bytes_of(output) == bytes_of(tmp_path / "one")
    assert seen.rows == 45_000 - 2 * PART_ROWS * 8


def test_what_a_partition_found_is_missed_when_it_is_gone(
    scheduler: str, samples: Path, tmp_path: Path
) -> None:
    output = tmp_path / "many"
    given = {"definition": WINDOWS, "log": samples, "output": output, "part_rows": PART_ROWS}
    request = backfill.Request(**given)

    def stop() -> None:
        if (output / "part-000000.parquet").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        partitioned.run(request, Unseen(stop), address=scheduler, partitions=2)
    (output / ".scratch/0000/0.arrow").unlink()
    with pytest.raises(InvalidInput, match=r"0.arrow cannot be read .*--restart"):
        partitioned.run(request, Unseen(), address=scheduler, partitions=2)


def test_a_bad_log_is_refused_as_by_one_process(
    scheduler: str, requests: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    shutil.copytree(requests, log)
    table = parquet.read_table(log / "requests.parquet")
    parquet.write_table(table.take(list(range(44_999, -1, -1))), log / "requests.parquet")
    with pytest.raises(InvalidInput, match=r"requests.parquet is not in order of at; sort it"):
        dealt(scheduler, REQUESTS, log, tmp_path / "out")


def test_an_empty_log_has_an_empty_part(scheduler: str, tmp_path: Path) -> None:
    fields = {field.name: [] for field in REQUESTS.streams[0].fields}
    asked: dict[str, Any] = {field.name: [] for field in REQUESTS.request.fields}
    log_folder.write(tmp_path / "log", REQUESTS, Log({"sales": Events([], [], [], fields)}, asked))
    whole(REQUESTS, tmp_path / "log", tmp_path / "one")
    dealt(scheduler, REQUESTS, tmp_path / "log", tmp_path / "many")
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")


def test_a_scheduler_that_is_not_there_is_named(
    requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitioned, "CONNECT_S", 0.3)
    with pytest.raises(Unavailable, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        dealt("tcp://127.0.0.1:9", REQUESTS, requests, tmp_path / "out")


@pytest.mark.parametrize(
    "error", [KilledWorker("read", SimpleNamespace(address="tcp://a"), 3), CancelledError()]
)
def test_lost_workers_are_no_crash(error: Exception) -> None:
    future: Future[Any] = Future()
    future.set_exception(error)
    with pytest.raises(Unavailable, match=r"Dask lost its workers .* again to go on"):
        partitioned._result(future)


def test_the_command_deals_out_entities(scheduler: str, requests: Path, tmp_path: Path) -> None:
    features = history.definition_file(tmp_path, REQUESTS)
    arguments = ["backfill", str(features), "--input", str(requests)]
    output = ["--output", str(tmp_path / "out")]
    done = CliRunner().invoke(
        app, [*arguments, *output, "--dask", scheduler, "--partitions", "2", "--keep", "id"]
    )
    assert done.exit_code == 0, done.output
    assert "45,000 rows of 135,000 rows of the log" in done.output
    run(REQUESTS, requests, tmp_path / "one", keep=("id",), part_rows=None)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "one")
