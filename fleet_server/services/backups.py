"""The whole state of a server into one file, and back, into either kind of database."""

import os
from itertools import chain
from pathlib import Path

from edge_core import durable
from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_server.config import ServerConfig
from fleet_server.services import authority_files
from fleet_server.services.authority_files import Secrecy
from fleet_server.services.clock import Clock, wall_clock
from fleet_server.services.errors import Conflict
from fleet_server.services.suite import DATABASE
from fleet_server.storage import archive, schema, transfer
from fleet_server.storage.archive import Archive, Manifest
from fleet_server.storage.database import Database
from fleet_server.storage.transfer import Tell

FORCE = "name --force to replace it"


def back_up(
    config: ServerConfig,
    file: Path,
    tell: Tell,
    clock: Clock = wall_clock,
    secrecy: Secrecy = Secrecy(),  # noqa: B008  # immutable
) -> Manifest:
    """Write one unchanging state of the database, and the authority's key, to a file (0600).

    A server may go on writing.

    A database of an older schema is written as it is: this is what to do before an upgrade.

    Raises:
        InvalidConfiguration: there is no database yet, or nobody said how keys are to be kept.
        Unavailable: the database or the file cannot be used.
    """
    authority = list(authority_files.outgoing(config.ca_dir, secrecy))
    path = config.data / DATABASE
    if config.database.url is None and not path.exists():
        raise InvalidConfiguration(f"no database {path}: name the server's settings with --config")
    database = Database.at(config.database.url, path, migrate=False)
    try:
        with database.read() as connection:
            revision = schema.present(connection)
            if revision is None:
                raise InvalidConfiguration(f"the database {database.name} holds no server's state")
            tables = chain(transfer.outgoing(connection, tell), authority)
            return archive.write(file, revision, clock(), tables)
    finally:
        database.close()


def restore(
    config: ServerConfig,
    file: Path,
    tell: Tell,
    *,
    force: bool = False,
    passphrase: bytes | None = None,
) -> Manifest:
    """Make the database what a backup says: as a whole, or not at all.

    No server may run meanwhile.

    Raises:
        InvalidBackup: the file is no backup, damaged, or of a newer schema; nothing was touched.
        InvalidConfiguration: its keys are encrypted, and not with this passphrase.
        Conflict: the database holds rows, and ``force`` is not given.
        Unavailable: the database or the file cannot be used.
    """
    source = Archive(file)
    try:
        authority = authority_files.incoming(source, passphrase)
        authority_files.check(config.ca_dir, authority, force=force)
        if config.database.url is None:
            _restore_file(config.data / DATABASE, source, tell, force=force)
        else:
            _restore_in_place(config.database.url, source, tell, force=force)
        authority_files.write(config.ca_dir, authority)
        return source.manifest
    finally:
        source.close()


def _restore_in_place(url: str, source: Archive, tell: Tell, *, force: bool) -> None:
    database = Database.at(url, Path(), migrate=False)
    lock = None
    try:
        lock = database.try_lead()
        if lock is None:
            raise Conflict(f"a server decides on {database.name}: stop every server first")
        with database.write() as connection:
            if not force and transfer.occupied(connection):
                raise Conflict(f"the database {database.name} is not empty: {FORCE}")
            transfer.clear(connection)
            transfer.fill(connection, source, tell)
    finally:
        if lock is not None:
            lock.release()
        database.close()


def _restore_file(path: Path, source: Archive, tell: Tell, *, force: bool) -> None:
    """Build a new file beside the old one, and take its place."""
    if path.exists():
        _settle(path, force=force)
    fresh = path.with_name(f".{path.name}.restoring")
    _remove(fresh)
    database = Database(fresh, migrate=False)
    try:
        with database.write() as connection:
            transfer.fill(connection, source, tell)
    except BaseException:
        database.close()
        _remove(fresh)
        raise
    database.close()  # the last connection folds the log into the file
    try:
        descriptor = os.open(fresh, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for part in ("-wal", "-shm"):  # what is left of the old file's log is not the new one's
            path.with_name(path.name + part).unlink(missing_ok=True)
        fresh.replace(path)
        durable.sync_folder(path.parent)
    except OSError as error:
        raise Unavailable(f"cannot replace {path}: {error.strerror}") from error


def _settle(path: Path, *, force: bool) -> None:
    """Fold the old file's log into it, so that it is whole until it is replaced."""
    database = Database(path, migrate=False)
    try:
        with database.read() as connection:
            if not force and transfer.occupied(connection):
                raise Conflict(f"the database {path} is not empty: {FORCE}")
    except Unavailable:
        if not force:
            raise
    finally:
        database.close()


def _remove(path: Path) -> None:
    for part in ("", "-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)
