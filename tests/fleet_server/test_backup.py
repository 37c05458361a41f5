"""Backups: one state while a server writes, back into either database, whole or not at all."""

import contextlib
import gzip
import re
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from edge_core.errors import InvalidConfiguration, Unavailable
from edge_core.messages.telemetry import StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.app import create_app
from fleet_server.authority.ca_folder import CERTIFICATE, KEY, NEXT_KEY, OLD_KEY
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.config import DatabaseConfig, ServerConfig
from fleet_server.services import backups
from fleet_server.services.authority_files import Secrecy
from fleet_server.services.errors import Conflict
from fleet_server.services.suite import DATABASE, Services
from fleet_server.storage import archive, journal, schema, tables, transfer
from fleet_server.storage.archive import InvalidBackup
from fleet_server.storage.database import Database
from tests.simulators.postgres import PostgresServer
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")
SAMPLE = Path(__file__).parents[1] / "compat" / "databases" / "schema-1.sqlite.gz"
QUESTIONS = ("fleet", "devices", "releases", "production", "rollouts", "events", "alerts", "cost")


def quiet(_text: str) -> None:
    pass


def spoken(fleet: SpokenFleet, ref: ReleaseRef, sequence: int) -> None:
    fleet.window(
        StatsWindow(
            device="d1",
            epoch="e",
            sequence=sequence,
            opened_ms=fleet.clock(),
            closed_ms=fleet.clock(),
            release=ref,
            target=TARGET,
            arm="incumbent",
            rows=7,
        )
    )


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    """A fleet in the midst of a rollout, with some text that only one database takes."""
    old: ReleaseRef = fleet.approve(repository.publish("1.0.0"))
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    fleet.produce(old, ["d0", "d1", "d2"])
    for sequence in range(3):
        spoken(fleet, old, sequence)
    fleet.services.rollouts.start(new.name, None, "ann")
    fleet.obey()
    fleet.decide(2)
    with fleet.services.database.write() as connection:
        journal.add_event(connection, fleet.clock(), "device", "d1", "naïve ✓", {"a": [1, None]})
    return old


@pytest.fixture
def elsewhere(tmp_path: Path, postgres: PostgresServer) -> Iterator[Callable[[str], ServerConfig]]:
    """Makes settings of a server on an empty database of either kind."""
    urls = []

    def make(kind: str) -> ServerConfig:
        folder = tmp_path / f"new-{kind}"
        folder.mkdir()
        url = postgres.new_database() if kind == "postgresql" else None
        urls.append(url)
        return ServerConfig(data_dir=str(folder), database=DatabaseConfig(url=url))

    yield make
    for url in urls:
        if url is not None:
            postgres.drop(url)


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with database.read() as connection:
        return {
            table.name: [
                tuple(row)
                for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables.metadata.sorted_tables
            if table.name != "schema_version"
        }


def answers(config: ServerConfig, services: Services, secret: str) -> dict[str, Any]:
    with TestClient(create_app(config, services)) as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        return {name: client.get(f"/api/v1/{name}").json() for name in QUESTIONS}


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backup_goes_into_either_database_and_answers_alike(
    fleet: SpokenFleet, ref: ReleaseRef, tmp_path: Path, elsewhere: Any, kind: str
) -> None:
    secret = fleet.services.tokens.create("ann", "viewer")
    said: list[str] = []
    backups.back_up(fleet.config, tmp_path / "b.tar", said.append)
    assert any(line.startswith("windows: 3 rows") for line in said)
    other = elsewhere(kind)
    backups.restore(other, tmp_path / "b.tar", quiet)
    services = Services.open(other, fleet.clock)
    assert services.database.migrated_from is None
    assert everything(services.database) == everything(fleet.services.database)
    moved = msgspec.structs.replace(fleet.config, database=other.database)
    assert answers(moved, services, secret) == answers(fleet.config, fleet.services, secret)
    with services.database.write() as connection:
        journal.add_event(connection, 0, "device", "d1", "numbers go on")
        latest = journal.latest_events(connection, 2)
    assert latest[0].event == latest[1].event + 1
    services.database.close()


def test_the_same_rows_make_the_same_bytes_from_either_database(
    fleet: SpokenFleet, ref: ReleaseRef, tmp_path: Path, elsewhere: Any
) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    backups.back_up(fleet.config, one, quiet, lambda: 5)
    kind = "sqlite" if fleet.services.database.dialect == "postgresql" else "postgresql"
    other = elsewhere(kind)
    backups.restore(other, one, quiet)
    backups.back_up(other, two, quiet, lambda: 5)
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_mode & 0o777 == 0o600


def test_a_backup_during_ingest_is_one_state(
    fleet: SpokenFleet, ref: ReleaseRef, tmp_path: Path, elsewhere: Any
) -> None:
    stop = threading.Event()

    def go_on() -> None:
        sequence = 100
        while not stop.is_set():
            spoken(fleet, ref, sequence)
            sequence += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        backups.back_up(fleet.config, tmp_path / "b.tar", quiet)
    finally:
        stop.set()
        thread.join()
    other = elsewhere("sqlite")
    backups.restore(other, tmp_path / "b.tar", quiet)
    database = Database(other.data / DATABASE)
    found = everything(database)
    stored = [row for row in found["windows"] if row[0] == "d1"]
    (sums,) = [row for row in found["totals"] if row[0] == "d1"]
    assert len(stored) >= 3
    assert sums[3] == 7 * len(stored), "the sums and the windows are of one moment"
    database.close()


def test_what_is_there_is_replaced_only_on_demand(
    fleet: SpokenFleet, ref: ReleaseRef, tmp_path: Path
) -> None:
    backups.back_up(fleet.config, tmp_path / "b.tar", quiet)
    before = everything(fleet.services.database)
    fleet.report("later")
    with pytest.raises(Conflict, match="--force"):
        backups.restore(fleet.config, tmp_path / "b.tar", quiet)
    assert everything(fleet.services.database) != before
    fleet.services.database.close()
    backups.restore(fleet.config, tmp_path / "b.tar", quiet, force=True)
    database = Database.at(fleet.config.database.url, fleet.config.data / DATABASE)
    assert everything(database) == before
    database.close()


def test_nothing_is_restored_under_a_server_that_runs(
    tmp_path: Path, fleet: SpokenFleet, ref: ReleaseRef, elsewhere: Any
) -> None:
    backups.back_up(fleet.config, tmp_path / "b.tar", quiet)
    other = elsewhere("postgresql")
    services = Services.open(other)
    assert services.leading.lead()
    with pytest.raises(Conflict, match="stop every server"):
        backups.restore(other, tmp_path / "b.tar", quiet, force=True)
    services.leading.release()
    services.database.close()
    backups.restore(other, tmp_path / "b.tar", quiet, force=True)


def test_a_damaged_backup_touches_nothing(
    fleet: SpokenFleet, ref: ReleaseRef, tmp_path: Path
) -> None:
    file = tmp_path / "b.tar"
    backups.back_up(fleet.config, file, quiet)
    whole = file.read_bytes()
    last = len(whole.rstrip(b"\0"))  # a tar ends in zeros that mean nothing
    before = everything(fleet.services.database)
    damaged = [
        whole[:point] + bytes([whole[point] ^ 0x55]) + whole[point + 1 :]
        for point in (0, 100, 600, 3000, last - 1500, last - 1)
    ]
    for data in [*damaged, whole[: last // 2], whole[: last - 600]]:
        file.write_bytes(data)
        with pytest.raises(InvalidBackup):
            backups.restore(fleet.config, file, quiet, force=True)
    assert everything(fleet.services.database) == before


def test_an_error_midway_leaves_the_old_database(
    fleet: SpokenFleet, ref: ReleaseRef, tmp_path: Path
) -> None:
    """All digests are right, and a row cannot be stored: its key is there twice."""
    made = [
        archive.Table(
            name=str(table.name),
            columns=[str(column.name) for column in table.columns],
            rows=[],
        )
        for table in tables.metadata.sorted_tables
        if table.name not in transfer.KEPT_OUT
    ]
    twice = archive.Table(
        name="confirmations", columns=["device", "revision", "at_ms"], rows=[["d1", 1, 1]] * 2
    )
    made = [twice if table.name == "confirmations" else table for table in made]
    archive.write(tmp_path / "b.tar", schema.newest(), 0, made)
    before = everything(fleet.services.database)
    fleet.services.database.close()
    with pytest.raises(sa.exc.IntegrityError):
        backups.restore(fleet.config, tmp_path / "b.tar", quiet, force=True)
    database = Database.at(fleet.config.database.url, fleet.config.data / DATABASE)
    assert everything(database) == before
    database.close()


def test_an_old_schema_is_kept_as_it_is_and_brought_up_where_it_is_restored(
    tmp_path: Path, elsewhere: Any
) -> None:
    old = ServerConfig(data_dir=str(tmp_path / "old"))
    old.data.mkdir()
    (old.data / DATABASE).write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    made = backups.back_up(old, tmp_path / "b.tar", quiet)
    assert made.revision == schema.FIRST
    for kind in BACKENDS:
        other = elsewhere(kind)
        backups.restore(other, tmp_path / "b.tar", quiet)
        services = Services.open(other)
        assert services.database.migrated_from is None
        assert services.verdicts.replay(1).same
        services.database.close()


@pytest.mark.parametrize(
    ("revision", "version", "says"), [("9999", 1, "server version"), ("0001", 9, "format 9")]
)
def test_a_backup_of_a_newer_server_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str, version: int, says: str
) -> None:
    file = tmp_path / "b.tar"
    manifest = archive.Manifest(v=version, revision=revision, made_ms=0, parts=[])
    archive._pack(file, manifest, tmp_path)
    with pytest.raises(InvalidBackup, match=says):
        backups.restore(ServerConfig(data_dir=str(tmp_path)), file, quiet)


def test_a_restore_that_is_killed_leaves_the_old_database_or_the_new(tmp_path: Path) -> None:
    settings = tmp_path / "s.toml"
    settings.write_text(f'data_dir = "{tmp_path}"\n')
    file = tmp_path / DATABASE
    file.write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    config = ServerConfig(data_dir=str(tmp_path))
    backups.back_up(config, tmp_path / "b.tar", quiet)
    command = [sys.executable, "-m", "fleet_server", "restore", "--force", "--config"]
    seen = set()
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.3, 1.0):
        database = Database(file)
        with database.write() as connection:
            connection.execute(tables.tokens.delete())
        database.close()
        process = subprocess.Popen(
            [*command, str(settings), str(tmp_path / "b.tar")],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        assert process.stderr is not None
        process.stderr.readline()  # the first table is in
        time.sleep(delay)
        process.kill()
        process.communicate()
        database = Database(file)
        found = everything(database)
        database.close()
        assert len(found["verdicts"]) == 2
        assert len(found["windows"]) > 0
        seen.add(len(found["tokens"]))
    assert seen == {0, 1}, "some of them ended before, some after"


def test_what_is_no_backup_is_refused_in_one_line(tmp_path: Path) -> None:
    config = ServerConfig(data_dir=str(tmp_path))
    file = tmp_path / "b.tar"
    with pytest.raises(Unavailable, match="cannot read"):
        backups.restore(config, file, quiet)
    for content in (b"", b"no tar" * 1000):
        file.write_bytes(content)
        with pytest.raises(InvalidBackup):
            backups.restore(config, file, quiet)
    with tarfile.open(file, "w") as tar:
        tar.add(__file__, "manifest.json")
    with pytest.raises(InvalidBackup, match="damaged"):
        backups.restore(config, file, quiet)
    assert not (tmp_path / DATABASE).exists()
    with pytest.raises(InvalidConfiguration, match="no database"):
        backups.back_up(config, file, quiet)


def test_the_commands(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fleet_server", *arguments, "--config", str(settings)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    settings = tmp_path / "s.toml"
    settings.write_text(f'data_dir = "{tmp_path}"\n')
    (tmp_path / DATABASE).write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    assert "revision 0001" in run("migrate", "--check").stderr
    done = run("backup", str(tmp_path / "b.tar"))
    assert done.returncode == 0, done.stderr
    assert "schema revision 0001" in done.stdout
    assert "verdicts: 2 rows" in done.stderr
    refused = run("restore", str(tmp_path / "b.tar"))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--force" in refused.stderr
    done = run("restore", str(tmp_path / "b.tar"), "--force")
    assert done.returncode == 0, done.stderr
    assert "up to date" in run("migrate", "--check").stdout


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_the_key_that_certifies_devices_is_in_the_backup_and_comes_back(
    fleet: SpokenFleet, tmp_path: Path, passphrase: bytes | None
) -> None:
    fleet.services.certificates.authority.prepare(fleet.clock)
    key = (fleet.config.ca_dir / KEY).read_bytes()
    file, place = tmp_path / "backup.tar", tmp_path / "elsewhere"
    with pytest.raises(InvalidConfiguration, match="--passphrase-file FILE, or let it"):
        backups.back_up(fleet.config, file, quiet)
    assert not file.exists()
    secrecy = Secrecy(passphrase=passphrase, plain=passphrase is None)
    backups.back_up(fleet.config, file, quiet, secrecy=secrecy)
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        parts = [archive.extractfile(member) for member in archive.getmembers()]
        held = b"".join(part.read() for part in parts if part is not None)
    plain = b"".join(_unpacked(held))
    assert (key in plain) == (passphrase is None)
    elsewhere = ServerConfig(data_dir=str(place))
    place.mkdir()
    DeviceCa(elsewhere.ca_dir).trusted(fleet.clock())
    (elsewhere.ca_dir / OLD_KEY).write_bytes(key)
    with pytest.raises(Conflict, match="another authority"):
        backups.restore(elsewhere, file, quiet, passphrase=passphrase)
    if passphrase is not None:
        for other in (None, b"wrong"):
            with pytest.raises(InvalidConfiguration, match="encrypted"):
                backups.restore(elsewhere, file, quiet, force=True, passphrase=other)
    backups.restore(elsewhere, file, quiet, force=True, passphrase=passphrase)
    assert not (elsewhere.ca_dir / OLD_KEY).exists(), "what the backup does not know of is no key"
    for name in (KEY, NEXT_KEY, CERTIFICATE):
        was = (fleet.config.ca_dir / name).read_bytes()
        assert (elsewhere.ca_dir / name).read_bytes() == was
    assert (elsewhere.ca_dir / KEY).stat().st_mode & 0o777 == 0o600


def _unpacked(held: bytes) -> Iterator[bytes]:
    """Everything that lies in the tar, its parts decompressed."""
    yield held
    for start in (found.start() for found in re.finditer(rb"\x1f\x8b\x08", held)):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj(wbits=31).decompress(held[start:])
