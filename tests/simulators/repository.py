"""A release repository with real signatures, served over real HTTP."""

import functools
import http.server
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from converters import publishing, signing
from edge_core.release import ReleaseRef
from fleet_server.repository_refresh import Refresher
from tests.simulators.tiny_bundle import tiny_bundle


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, cut: set[str], asked: list[str], *args: Any, **options: Any) -> None:
        self._cut = cut
        self._asked = asked
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        """Note what is asked for."""
        self._asked.append(self.path)
        super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send the file, or only its beginning where the connection is to be cut."""
        if any(name in self.path for name in self._cut):
            outputfile.write(source.read(10))
            outputfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


class RepositorySimulator:
    """Keys, metadata and targets below one folder; edited like data, signed for real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.keys = folder / "keys"
        self.bundles = folder / "bundles"
        self.statement_key = signing.generate_key(self.keys)
        publishing.init_repository(self.folder, self.keys, datetime.now(UTC))
        self.cut: set[str] = set()
        """Names of files whose transfer breaks off in the middle."""
        self.asked: list[str] = []
        """Paths of all requests so far."""
        self.root = (self.folder / "metadata" / "1.root.json").read_bytes()
        handler = functools.partial(_Quiet, self.cut, self.asked, directory=str(self.folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.refresh()

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(
        self,
        version: str,
        *,
        seed: int = 0,
        build: Callable[..., Path] = tiny_bundle,
        **changes: Any,
    ) -> ReleaseRef:
        """Build, sign and list one tiny release; ``changes`` as for ``build``."""
        bundle = build(
            self.bundles / version,
            version=version,
            seed=seed,
            sign_with=self.statement_key,
            **changes,
        )
        ref = publishing.publish(bundle, self.folder, self.keys, datetime.now(UTC))
        self.refresh()
        return ref

    def refresh(self, life: timedelta = timedelta(days=1)) -> None:
        """Sign snapshot and timestamp afresh, as the fleet server does."""
        Refresher(
            self.folder,
            self.keys / "online",
            self.root,
            snapshot_life=life,
            timestamp_life=life,
        ).refresh(datetime.now(UTC))

    def target(self, ref: ReleaseRef, name: str) -> Path:
        """The file that is served for a bundle path ending in ``name``."""
        folder = self.folder / "targets" / ref.model / ref.version
        return next(path for path in folder.rglob(f"*.{name}"))

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.stop()

    def stop(self) -> None:
        """Stop serving; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
