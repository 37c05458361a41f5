"""What comes over MQTT: at the device, at the server with its database, and their parsers."""

import math
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from converters import publishing, signing
from edge_agent.commands import Commands
from edge_agent.inbox import Inbox
from edge_agent.update.journal import Entry, Journal
from edge_core.errors import InvalidMessage
from edge_core.messages import codec, topics
from edge_core.messages import windows as packed_windows
from edge_core.messages.command import Command, FallbackOff
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import (
    Online,
    PackedWindow,
    ReportedState,
    Sample,
    StatsWindow,
)
from edge_core.release import ReleaseRef
from fleet_server.config import ServerConfig
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.catalog import Catalog
from fleet_server.services.ingest import Inbound, Ingest
from fleet_server.storage import journal, windows
from fleet_server.storage.database import Database
from tests.compat.make_samples import DESIRED, MESSAGES
from tests.compat.test_samples import COMMAND, SCHEMA
from tests.fuzz.forms import BYTES, MSGPACK
from tests.fuzz.mutator import Case
from tests.fuzz.surface import Surface
from tests.simulators.tiny_bundle import TARGET, tiny_bundle

NOW_MS = 1_700_000_000_000
KINDS = (PackedWindow, Sample, ReportedState, Online, DesiredState, Command)


class Codec(Surface):
    """Every message by its parser; what is taken is written and read as the same."""

    name = "messages"
    forms = (MSGPACK,)
    short = 400

    def __init__(self, folder: Path) -> None:
        messages = (*MESSAGES.values(), DESIRED, PackedWindow(w=b"\x02e\x01" + bytes(8)))
        self.seeds = [(codec.encode(message),) for message in messages]

    def feed(self, case: Case) -> int:
        (payload,) = case
        refused = [self._refused(kind, payload) for kind in KINDS]
        return int(all(refused) and self._window_refused(payload))

    def _window_refused(self, payload: bytes) -> bool:
        """Whether it is no window of either version, nor of a release that its schema fits."""
        try:
            window = codec.decode_window(payload)
            if isinstance(window, PackedWindow):
                window = packed_windows.unpack(packed_windows.head(window), SCHEMA, "watch-01")
        except InvalidMessage:
            return True
        return False

    def _refused(self, kind: type[codec.Message], payload: bytes) -> bool:
        try:
            message = codec.decode(kind, payload)
            again = codec.decode(kind, codec.encode(message))
        except InvalidMessage:
            return True
        assert again == message
        return False

    def check(self) -> None:
        assert not any(self.feed(case) for case in self.seeds)


class Topics(Surface):
    """Names of topics."""

    name = "topics"
    forms = (BYTES,)
    short = 400

    def __init__(self, folder: Path) -> None:
        self.seeds = [(f"serinus/v1/up/d-1/{kind}".encode(),) for kind in ("state", "stats")]

    def feed(self, case: Case) -> int:
        text = case[0].decode("utf-8", "surrogateescape")
        found = topics.parse_up(text)
        assert topics.up(*found) == text
        return 0

    def check(self) -> None:
        assert topics.parse_up("serinus/v1/up/d-1/state") == ("d-1", "state")


class Desired(Surface):
    """What the agent takes from its broker; a wish or order that is taken survives a restart."""

    name = "mqtt-down"
    forms = (BYTES, MSGPACK)
    short = 120

    def __init__(self, folder: Path) -> None:
        self._wanted: list[DesiredState] = []
        self._inbox = Inbox("d-1", want=self._wanted.append, command=self._obey)
        self._journal = Journal(folder)
        self._folder = folder
        self._commands = self._read_commands()
        self._obeyed = 0
        topic = topics.down("d-1", "desired").encode()
        wishes = (DESIRED, DesiredState(revision=1, issued_ms=0, active=None))
        self.seeds = [(topic, codec.encode(wish)) for wish in wishes]
        orders = (COMMAND, msgspec.structs.replace(COMMAND, id="c", action=FallbackOff(model="m")))
        topic = topics.down("d-1", "command").encode()
        self.seeds += [(topic, codec.encode(order)) for order in orders]

    def _read_commands(self) -> Commands:
        return Commands(self._folder, now_ms=lambda: COMMAND.issued_ms, follow=lambda _: None)

    def _obey(self, payload: bytes) -> None:
        self._commands.take(payload)
        self._obeyed += 1

    def counted(self) -> int:
        return self._inbox.refused

    def feed(self, case: Case) -> int:
        self._wanted.clear()
        before = self._obeyed
        self._inbox.take(case[0].decode("utf-8", "surrogateescape"), case[1])
        if self._obeyed > before:
            again = self._read_commands()
            assert (again.unreadable, again.orders) == (0, self._commands.orders)
            return 0
        if not self._wanted:
            return 1
        (wish,) = self._wanted
        entry = Entry(state="downloading", desired=wish)
        self._journal.write(entry)
        assert self._journal.read() == entry, self._journal.read().reason
        return 0

    def check(self) -> None:
        assert not any(self.feed(case) for case in self.seeds)


class Reports(Surface):
    """What the server takes in, with a real database and a release that it knows."""

    name = "mqtt-up"
    forms = (BYTES, MSGPACK)
    short = 60

    def __init__(self, folder: Path) -> None:
        ref = _published(folder)
        self._database = Database(folder / "serinus.sqlite")
        catalog = Catalog(self._database, lambda: NOW_MS)
        RepositoryWatch(ServerConfig(data_dir=str(folder)), catalog).look()
        self._ingest = Ingest(
            self._database, catalog, lambda: NOW_MS, drift_period_seconds=10, future_seconds=600
        )
        self._ref = ref
        with self._database.read() as connection:
            release = catalog.require(connection, ref.digest)
        self._schema = release.window_schema
        raw = math.prod(release.definition.raw_shape)
        sample = Sample(
            device="d-1",
            prediction_id="p",
            at_ms=NOW_MS,
            release=ref,
            target=TARGET,
            arm="incumbent",
            definition=release.definition_digest,
            window=np.zeros(raw, "<f4").tobytes(),
            features=np.zeros(len(release.definition.feature_names), "<f4").tobytes(),
            scores=np.zeros(len(release.manifest.output.classes), "<f4").tobytes(),
        )
        self._sequence = 0
        self.seeds = [
            (topics.up("d-1", kind).encode(), codec.encode(message))
            for kind, message in (
                ("stats", self._packed("d-1", 1)),
                ("online", Online(device="d-1", online=True)),
                ("samples", sample),
                ("state", _known(MESSAGES["state"], ref)),
            )
        ]

    def _window(self, device: str, sequence: int) -> StatsWindow:
        return StatsWindow(
            device=device,
            epoch="e",
            sequence=sequence,
            opened_ms=NOW_MS - 2000,
            closed_ms=NOW_MS,
            release=self._ref,
            target=TARGET,
            arm="incumbent",
            slices={"side": "left"},
            rows=10,
        )

    def _packed(self, device: str, sequence: int) -> PackedWindow:
        return packed_windows.pack(self._window(device, sequence), self._schema)

    def counted(self) -> int:
        with self._database.read() as connection:
            return journal.rejected_count(connection)

    def feed(self, case: Case) -> int:
        topic, payload = case
        before = self.counted()
        text = topic.decode("utf-8", "replace")
        self._ingest.take([Inbound(topic=text, payload=payload)])
        rejected = self.counted() - before
        readable = self._readable(text, payload)
        assert rejected == 1 or (rejected == 0 and readable), (rejected, readable)
        return rejected

    def _readable(self, topic: str, payload: bytes) -> bool:
        kinds = {"samples": Sample, "state": ReportedState, "online": Online}
        try:
            kind = topics.parse_up(topic).kind
            if kind == "stats":
                codec.decode_window(payload)
            else:
                codec.decode(kinds[kind], payload)
        except InvalidMessage:
            return False
        return True

    def check(self) -> None:
        self._sequence += 1
        before = self.counted()
        window = self._packed("steady", self._sequence)
        topic = topics.up("steady", "stats")
        self._ingest.take([Inbound(topic=topic, payload=codec.encode(window))])
        with self._database.read() as connection:
            stored = windows.totals_of(connection, "steady", self._ref.digest, "incumbent").rows
        assert (stored, self.counted() - before) == (10 * self._sequence, 0)

    def close(self) -> None:
        self._database.close()


def _published(folder: Path) -> ReleaseRef:
    """A repository below the folder, with one release."""
    keys, now = folder / "keys", datetime.now(UTC)
    publishing.init_repository(folder / "repository", keys, now)
    key = signing.generate_key(keys)
    (folder / "online").symlink_to(keys / "online")
    bundle = tiny_bundle(folder / "bundle", sign_with=key)
    return publishing.publish(bundle, folder / "repository", keys, now)


def _known(state: codec.Message, ref: ReleaseRef) -> codec.Message:
    assert isinstance(state, ReportedState)
    return msgspec.structs.replace(state, device="d-1", active=ref)
