"""Keeps revoked devices off the broker: the list it reads, a probe that it does, those inside.

mosquitto reads a list only when told, checks it at handshakes only, and takes an empty or damaged
one for none: everybody would be let in. So a list is written whole and checked before the signal,
and afterwards a certificate knocks that was made for this list and is on no other. Where it gets
in, the broker is started again, which it refuses to do with a bad list. Devices that are connected
are thrown off by a connection of the same name, for which the server certifies itself.

While one authority follows another there is a list and a knock of each. When one is trusted no
more, the broker is started again: it would not look again at those that are connected.
"""

import contextlib
import ssl
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec

from edge_core import durable
from edge_core.errors import SerinusError, Unavailable
from fleet_server.authority.device_ca import OWNER, Revoked
from fleet_server.broker import handshake
from fleet_server.broker.files import CRL, BrokerTls
from fleet_server.broker.handshake import Answer
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig
from fleet_server.services.certificates import Certificates
from fleet_server.services.clock import Clock
from fleet_server.storage.certificates import Ended

LOOK_SECONDS = 2.0
PROBE_MS = 60_000
RENEW_MS = 86_400_000
"""A list is made anew so often, though nothing changed: it is valid for a week."""
OVERLAP_MS = 60_000
"""A transaction may commit so long after the time that it has written."""
TAKE_OVER = timedelta(minutes=5)
RELOAD_SECONDS = 5.0
STEP_SECONDS = 0.1
PROBE = "@probe"
"""No device can have that name."""
IDENTITY = "server-client.pem"
SAID: dict[Answer, str] = {
    "refused": "",
    "in": "the broker lets a revoked certificate in: see mosquitto.log in the data folder",
    "away": "the broker does not answer: nobody knows whether it heeds revocations",
}


class _Trust(msgspec.Struct, frozen=True):
    """What the broker and those who connect from here have to follow."""

    authorities: tuple[bytes, ...]
    """What names them, who signs first."""
    server: bytes
    """The broker's own certificate and key."""


class BrokerGuard:
    """One thread beside one broker of the server's own."""

    def __init__(
        self,
        config: MqttConfig,
        certificates: Certificates,
        broker: Broker,
        tls: BrokerTls,
        clock: Clock,
    ) -> None:
        self._config = config
        self._certificates = certificates
        self._broker = broker
        self._tls = tls
        self._clock = clock
        self._listed: set[str] = set()
        self._number = 0
        self._written_ms = 0
        self._probed_ms = 0
        self._since_ms = clock()
        self._thrown: set[Ended] = set()
        self._probes: list[Path] = []
        self._trust: _Trust | None = None
        self._context: ssl.SSLContext | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker guard", daemon=True)
        self.problem = ""
        """What is wrong, for readiness; empty where nothing is."""

    @property
    def identity(self) -> Path:
        """The server's own key and certificate towards the broker."""
        return self._broker.folder / IDENTITY

    @property
    def context(self) -> ssl.SSLContext:
        """How the server connects to the broker; it follows what changes."""
        if self._context is None:
            self._context = handshake.pinned(self._tls.certificate, self.identity)
        return self._context

    def prepare(self) -> None:
        """Write what the broker needs before it starts.

        Raises:
            SerinusError: the authority, the database or a file cannot be used.
        """
        folder = self._broker.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot write into {folder}: {error.strerror}") from error
        trust = self._trusted()
        self._identify()
        self._write()
        self._trust = trust

    def start(self) -> None:
        """Look once, then go on in a thread of its own."""
        self._guarded(self.look)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._certificates.changed.set()
        if self._thread.is_alive():
            self._thread.join(10)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def look(self) -> None:
        """Tell the broker what was revoked, see that it heeds it, and throw off who is inside."""
        now, trust = self._clock(), self._trusted()
        if trust != self._trust:
            self._follow(trust)
        elif self._is_due(now):
            self._write()
            self._broker.reload()
            self._check(self._settled())
        elif self.problem or now - self._probed_ms > PROBE_MS:
            self._check(self._probed())
        self._throw_off(now)

    def _is_due(self, now: int) -> bool:
        """Whether the lists have to be made anew."""
        revoked = self._certificates.revoked_serials()
        return revoked != self._listed or now - self._written_ms > RENEW_MS

    def _follow(self, trust: _Trust) -> None:
        """Let the broker and the server's own connections go over to other certificates.

        Raises:
            InvalidConfiguration: key and certificate do not fit, as while both are replaced.
        """
        handshake.check_pair(self._tls.certificate, self._tls.key)
        self._identify()
        if self._context is not None:
            handshake.pin(self._context, self._tls.certificate, self.identity)
        self._write()
        before = () if self._trust is None else self._trust.authorities
        if set(before) <= set(trust.authorities):
            self._broker.reload()
        else:
            self._broker.restart()
        self._trust = trust
        self._check(self._settled())

    def _trusted(self) -> _Trust:
        found = self._certificates.authority.authorities(self._clock())
        try:
            server = self._tls.certificate.read_bytes() + self._tls.key.read_bytes()
        except OSError as error:
            raise Unavailable(f"cannot read {error.filename}: {error.strerror}") from error
        return _Trust(tuple(one.key_id for one in found.every), server)

    def _identify(self) -> None:
        """Make the server's own certificate towards the broker."""
        _, own = self._certificates.authority.identity(OWNER, now_ms=self._clock())
        try:
            durable.write_bytes(self.identity, own, mode=0o600)
        except OSError as error:
            raise Unavailable(f"cannot write {self.identity}: {error.strerror}") from error

    def _write(self) -> None:
        """Write the lists whole, and only those that have been read back."""
        now = self._clock()
        number = max(now // 1000, self._number + 1)
        authority, revoked = self._certificates.authority, self._certificates.revoked()
        probes, entries = self._new_probes(now)
        entries += revoked
        data = authority.revocations(entries, number=number)
        path = self._broker.folder / CRL
        try:
            for file, pem in probes.items():
                durable.write_bytes(file, pem, mode=0o600)
            durable.write_bytes(path, data)
            written = path.read_bytes()
        except OSError as error:
            raise Unavailable(f"cannot write {path}: {error.strerror}") from error
        if not authority.is_list(written, entries, now_ms=now):
            raise Unavailable(f"{path} is not what was written: the broker is not told of it")
        self._listed, self._probes = {entry.serial for entry in revoked}, list(probes)
        self._number, self._written_ms = number, now

    def _new_probes(self, now: int) -> tuple[dict[Path, bytes], list[Revoked]]:
        """A certificate with its key by each authority, and the entry that revokes it."""
        files: dict[Path, bytes] = {}
        entries: list[Revoked] = []
        for one in self._certificates.authority.authorities(now).every:
            if one.key is not None and not one.ended(now):
                made, pem = self._certificates.authority.identity(PROBE, now_ms=now, by=one)
                files[self._broker.folder / f"revoked-probe-{one.state}.pem"] = pem
                entries.append(Revoked(serial=made.serial, at_ms=now, pem=made.pem))
        return files, entries

    def _check(self, answer: Answer) -> None:
        """Start the broker again where it has let a revoked certificate in."""
        self._probed_ms = self._clock()
        if answer == "in":
            print("broker: a revoked certificate was let in: it is started again", file=sys.stderr)
            self._write()
            self._broker.restart()
            answer = self._settled()
        self._say(SAID[answer])

    def _settled(self) -> Answer:
        """What the broker answers once it has read its files, or after a while."""
        answer: Answer = "away"
        for _ in range(round(RELOAD_SECONDS / STEP_SECONDS)):
            answer = self._probed()
            if answer == "refused" or self._stop.wait(STEP_SECONDS):
                break
        return answer

    def _probed(self) -> Answer:
        """What the broker answers to every probe; the worst of it."""
        found = [self._knock(file, PROBE) for file in self._probes]
        return "in" if "in" in found else "away" if "away" in found else "refused"

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            print(f"broker: {problem}", file=sys.stderr, flush=True)
        if problem != self.problem:
            self.problem = problem
            self._certificates.broker_trouble(problem)

    def _throw_off(self, now: int) -> None:
        """Take over the names of those whose certificates ended, which ends their connections."""
        found = set(self._certificates.ended(self._since_ms, now))
        for entry in sorted(found - self._thrown, key=lambda one: one.device):
            answer = self._take_over(entry)
            if answer != "in":
                raise Unavailable(f"cannot throw {entry.device} off the broker: it is {answer}")
            self._thrown.add(entry)
        self._thrown &= found
        self._since_ms = max(self._since_ms, now - OVERLAP_MS)

    def _take_over(self, entry: Ended) -> Answer:
        """Connect in a device's name; what waits for it is forgotten where it has no other key."""
        now = self._clock()
        _, pem = self._certificates.authority.identity(entry.device, now_ms=now, life=TAKE_OVER)
        with tempfile.NamedTemporaryFile(dir=self._broker.folder, suffix=".pem") as file:
            file.write(pem)  # 0600, and gone at once
            file.flush()
            return self._knock(Path(file.name), entry.device, clean=not entry.replaced)

    def _knock(self, own: Path, name: str, *, clean: bool = True) -> Answer:
        context = handshake.pinned(self._tls.certificate, own)
        place = self._config.reached_at, self._config.port
        return handshake.knock(*place, context, name, clean=clean)

    def _run(self) -> None:
        changed = self._certificates.changed
        while not self._stop.is_set():
            changed.wait(LOOK_SECONDS)
            changed.clear()
            if not self._stop.is_set():
                self._guarded(self.look)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Nothing ends the thread; what fails is tried again, and not ready meanwhile."""
        try:
            step()
        except Exception as error:
            text = str(error) if isinstance(error, SerinusError) else repr(error)
            if not isinstance(error, SerinusError):
                traceback.print_exc()
            with contextlib.suppress(SerinusError):
                self._say(f"revocations are not enforced now: {text}")
        else:
            if self.problem.startswith("revocations are not enforced now"):
                self._say("")
