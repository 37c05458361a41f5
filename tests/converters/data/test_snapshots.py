"""Data snapshots: the same data has the same id, and nothing but whole ones is ever found."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from converters import recipe as recipes
from converters.data import snapshot_folder, snapshot_record
from converters.data.cutting import Cut, ToCut
from converters.data.snapshot_record import SNAPSHOT
from converters.data.snapshot_store import PARTIAL, Store, Stored
from converters.data.taking import TakeData, ToTake
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import Privacy
from edge_core.errors import InvalidConfiguration, InvalidInput
from edge_core.features.definition import of_windows
from edge_core.features.sensors import SensorInput
from tests.converters import shop
from tests.converters.motion import WINDOWS, recordings
from tests.simulators.processes import command

ROOT = Path(__file__).parents[3]
WATCH = ROOT / "firmware_bundles" / "watch_activity"


def kept(store: Path) -> Stored:
    def write(new: Path) -> snapshot_record.SnapshotRecord:
        return snapshot_folder.write_recordings(
            new, WINDOWS, ["side"], recordings(), name="motion", source="drawn"
        )

    return Store(store).add(write)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.recipe(tmp_path_factory.mktemp("recipe") / "shop")


def taken(folder: Path, store: Path, snapshot: str | None = None) -> Stored:
    chosen = recipes.load(folder, None)
    stage, given = (
        TakeData(),
        ToTake(folder=folder, recipe=chosen, store=Store(store), snapshot=snapshot),
    )
    made = stage.run(given)
    stage.ensures(given, made)
    return made


def run(
    *arguments: str | Path, store: Path, limit: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    words = [*command("serinus-convert"), *map(str, arguments)]
    if limit:
        words = ["sh", "-c", f'ulimit {limit}; exec "$0" "$@"', *words]
    environment = os.environ | {"SERINUS_DATA": str(store), "SERINUS_CACHE": f"{store}-stages"}
    return subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment | variables
    )


# --- the same data ------------------------------------------------------------------------------


def test_recordings_come_back_to_the_bit(tmp_path: Path) -> None:
    place, record = kept(tmp_path)
    assert {name: table.rows for name, table in record.tables.items()} == {
        "recordings": 4,
        "samples": 166,
    }
    found = list(snapshot_folder.read_recordings(place, record, WINDOWS, ["side"]))
    for mine, theirs in zip(found, recordings(), strict=True):
        assert mine.samples.tobytes() == theirs.samples.tobytes()
        assert dataclasses.replace(mine, samples=theirs.samples) == theirs


def test_a_log_gives_the_rows_that_the_recipe_s_own_code_gives(
    folder: Path, tmp_path: Path
) -> None:
    chosen = recipes.load(folder, None)
    stored = taken(folder, tmp_path)
    assert (stored.record.first, stored.record.last) == (
        "2023-11-14T22:08:20Z",
        "2023-11-23T06:03:20Z",
    )
    direct = Cut().run(ToCut(folder=folder, recipe=chosen))
    read = Cut().run(ToCut(folder=folder, recipe=chosen, stored=stored))
    assert direct.digest() == read.digest()
    assert direct.rows["test"].slices == read.rows["test"].slices
    assert (direct.data, read.data) == (None, stored.record.lineage())


def test_the_same_data_has_the_same_bytes_wherever_it_is_taken(
    folder: Path, tmp_path: Path
) -> None:
    ids = set()
    for name, seed in (("a", "0"), ("b", "1")):
        done = run("snapshot", folder, store=tmp_path / name, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        ids |= {entry.id for entry in Store(tmp_path / name).everything()}
    assert len(ids) == 1
    other = run("snapshot", folder, store=tmp_path / "c", SHOP_SEED="2")
    assert other.returncode == 0
    assert ids != {entry.id for entry in Store(tmp_path / "c").everything()}


def test_releases_with_the_same_inputs_share_a_snapshot(tmp_path: Path) -> None:
    for release in ("1.0.0", "1.1.0"):
        assert run("snapshot", WATCH, "--release", release, store=tmp_path).returncode == 0
    (entry,) = Store(tmp_path).everything()
    shown = run("snapshots", store=tmp_path)
    assert entry.id[:12] in shown.stdout
    assert "whole" in shown.stdout
    listed = json.loads(run("snapshots", "--json", store=tmp_path).stdout)
    assert [one["id"] for one in listed] == [entry.id]


# --- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["recordings", "samples"])
@pytest.mark.parametrize("damage", ["one byte", "truncated", "gone"])
def test_a_damaged_file_is_named_before_it_is_parsed(
    table: str, damage: str, tmp_path: Path
) -> None:
    place, record = kept(tmp_path)
    path = place / f"{table}.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-100] if damage == "truncated" else bytes(data))
    with pytest.raises(InvalidInput, match=rf"{table}\.parquet"):
        snapshot_folder.read_recordings(place, record, WINDOWS, ["side"])
    (entry,) = Store(tmp_path).everything()
    assert bool(entry.damage) == (damage != "one byte")
    assert kept(tmp_path).folder == place  # what is offered again mends it
    snapshot_folder.check(place, record)


def test_files_that_no_digest_covers_are_not_read(folder: Path, tmp_path: Path) -> None:
    place, record = kept(tmp_path)
    whole = list(snapshot_folder.read_recordings(place, record, WINDOWS, ["side"]))
    for table in ("recordings", "samples"):
        (place / table).mkdir()
        shutil.copy(place / "recordings.parquet", place / table / "a.parquet")
    found = list(snapshot_folder.read_recordings(place, record, WINDOWS, ["side"]))
    assert [one.samples.tobytes() for one in found] == [one.samples.tobytes() for one in whole]
    stored = taken(folder, tmp_path)
    (stored.folder / "requests").mkdir()
    shutil.copy(stored.folder / "requests.parquet", stored.folder / "requests" / "a.parquet")
    with pytest.raises(InvalidInput, match=r"requests and requests\.parquet; leave one"):
        Cut().run(ToCut(folder=folder, recipe=recipes.load(folder, None), stored=stored))


def test_an_edited_description_is_another_snapshot_s(tmp_path: Path) -> None:
    place, record = kept(tmp_path)
    text = (place / SNAPSHOT).read_text()
    (place / SNAPSHOT).write_text(text.replace('"drawn"', '"Drawn"'))
    with pytest.raises(InvalidInput, match=r"snapshot\.json was altered"):
        Store(tmp_path).find(record.id)
    for wrong, words in (
        (text.replace('"version": 1', '"version": 2'), "version 2; this Serinus reads 1"),
        (text.replace("  ", " "), "not in the form"),
        (text.replace('"samples": {', '"../samples": {'), "no table"),
        (text[:100], "not valid"),
    ):
        (place / SNAPSHOT).write_text(wrong)
        with pytest.raises(InvalidInput, match=words):
            Store(tmp_path).find(str(place))


def test_a_snapshot_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    place, record = kept(tmp_path)
    assert Store(tmp_path).find(record.id[:8]) == (place, record)
    for name in (record.id[:7], "0" * 64, "", "../x"):
        with pytest.raises(InvalidInput, match="no data snapshot"):
            Store(tmp_path).find(name)


def test_the_snapshot_of_another_recipe_is_refused(folder: Path, tmp_path: Path) -> None:
    other = kept(tmp_path).record.id
    with pytest.raises(InvalidInput, match="recordings of 'motion'; the recipe's data is a log"):
        taken(folder, tmp_path, other)


def test_the_snapshot_of_a_release_with_other_data_is_refused(tmp_path: Path) -> None:
    stage, store = TakeData(), Store(tmp_path)

    def given(release: str, snapshot: str | None = None) -> ToTake:
        chosen = recipes.load(WATCH, release)
        return ToTake(folder=WATCH, recipe=chosen, store=store, snapshot=snapshot)

    both = stage.run(given("1.1.0"))
    assert both.record.settings == {"sides": ["left", "right"]}
    stage.ensures(given("1.0.0"), stage.run(given("1.0.0", both.record.id)))
    right = given("1.2.0", both.record.id)
    with pytest.raises(
        InvalidInput, match=r"taken with sides = \['left', 'right'\]; release 1.2.0 has \['right'\]"
    ):
        stage.ensures(right, stage.run(right))
    own = stage.run(given("1.2.0"))
    stage.ensures(given("1.2.0", own.record.id), own)
    assert snapshot_record.parse((own.folder / SNAPSHOT).read_bytes()) == own.record


def test_another_unit_and_a_channel_that_lacks_are_refused(tmp_path: Path) -> None:
    place, record = kept(tmp_path)
    first, second = WINDOWS.inputs
    inputs = [SensorInput(name="x", unit="m/s2", lsb=2**-10, low=-8.0, high=8.0), second]
    metric = of_windows(msgspec.structs.replace(WINDOWS, inputs=inputs))
    with pytest.raises(InvalidInput, match="x is in g, the definition has m/s2"):
        list(snapshot_folder.read_recordings(place, record, metric, ["side"]))
    inputs = [first, second, SensorInput(name="z", unit="g", lsb=2**-10, low=-8.0, high=8.0)]
    wider = of_windows(msgspec.structs.replace(WINDOWS, inputs=inputs))
    with pytest.raises(InvalidInput, match="no column z"):
        list(snapshot_folder.read_recordings(place, record, wider, ["side"]))
    with pytest.raises(InvalidInput, match="no column _slice_hand"):
        list(snapshot_folder.read_recordings(place, record, WINDOWS, ["hand"]))


def test_a_label_that_is_no_class_is_refused_and_nothing_is_kept(
    folder: Path, tmp_path: Path
) -> None:
    done = run("snapshot", folder, store=tmp_path / "data", SHOP_LABEL="pricey")
    assert done.returncode == 2
    assert "label 'pricey' is not a class" in done.stderr
    assert Store(tmp_path / "data").everything() == []


def test_a_label_in_the_files_that_is_no_class_is_refused(tmp_path: Path, folder: Path) -> None:
    """Somebody wrote a snapshot with other tools, digests and all."""
    stored = taken(folder, tmp_path)
    forged = tmp_path / "forged"
    shutil.copytree(stored.folder, forged)
    path = forged / "requests.parquet"
    table = parquet.read_table(path)
    column = table.schema.get_field_index("_label")
    labels = pa.array(["pricey"] * table.num_rows)
    parquet.write_table(table.set_column(column, "_label", labels), path)
    record = snapshot_record.parse((forged / SNAPSHOT).read_bytes())
    data = path.read_bytes()
    table_record = msgspec.structs.replace(
        record.tables["requests"], size=len(data), sha256=sha256_bytes(data)
    )
    record = msgspec.structs.replace(record, tables=record.tables | {"requests": table_record})
    (forged / SNAPSHOT).write_bytes(snapshot_record.serialize(record))
    found = taken(folder, tmp_path, str(forged))
    with pytest.raises(InvalidInput, match="label 'pricey' is not a class"):
        Cut().run(ToCut(folder=folder, recipe=recipes.load(folder, None), stored=found))


# --- power cuts, crowds, full disks -------------------------------------------------------------

WRITES_FOR_EVER = """
import sys, time
from pathlib import Path
from converters.data.snapshot_store import Store

def write(new):
    (new / "samples.parquet").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(600)

Store(Path(sys.argv[1])).add(write)
"""


def test_what_a_killed_process_left_is_never_found_and_removed(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert len(list(tmp_path.glob(f"{PARTIAL}*"))) == 1
    assert Store(tmp_path).everything() == []
    place, _ = kept(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", place.name]


def test_a_command_killed_at_any_moment_leaves_whole_snapshots(
    folder: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"SERINUS_DATA": str(tmp_path)}
    for delay in (0.6, 0.8, 1.0):
        child = subprocess.Popen(
            [*command("serinus-convert"), "snapshot", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        for entry in Store(tmp_path).everything():
            snapshot_folder.check(*Store(tmp_path).find(entry.id))
    assert run("snapshot", folder, store=tmp_path).returncode == 0


def test_ctrl_c_is_no_success(tmp_path: Path) -> None:
    folder, asked = shop.recipe(tmp_path / "shop"), tmp_path / "asked"
    (folder / "data.py").write_text(
        f"import time\n\ndef log(settings):\n    open({str(asked)!r}, 'w')\n    time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [*command("serinus-convert"), "snapshot", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SERINUS_DATA": str(tmp_path / "data")},
    )
    while not asked.exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate()
    assert (child.returncode, said) == (
        130,
        "serinus-convert: stopped; nothing was left half-made\n",
    )


def test_two_processes_at_once_keep_one_snapshot(folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {"SERINUS_DATA": str(tmp_path)}
    children = [
        subprocess.Popen(
            [*command("serinus-convert"), "snapshot", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        for _ in range(2)
    ]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    (entry,) = Store(tmp_path).everything()
    assert entry.damage == ""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = run("snapshot", WATCH, store=tmp_path / "data", limit="-f 64")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"data store {tmp_path / 'data'}: File too large" in done.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_store_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("snapshot", folder, store=tmp_path / "file" / "data")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Not a directory" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_snapshot_is_used_from_where_nobody_may_write(folder: Path, tmp_path: Path) -> None:
    stored = taken(folder, tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert taken(folder, tmp_path, stored.record.id) == stored
        with pytest.raises(OSError, match="Permission denied"):
            taken(folder, tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_privacy_of_what_the_features_have_not_stops_the_build_at_once(tmp_path: Path) -> None:
    made = taken(WATCH, tmp_path)
    chosen = msgspec.structs.replace(
        recipes.load(WATCH, None), privacy=Privacy(redacted=["ax", "pulse"])
    )
    with pytest.raises(InvalidConfiguration, match="privacy redacts pulse; the features are of ax"):
        Cut().run(ToCut(folder=WATCH, recipe=chosen, stored=made))
