"""Queries on which windows of each outbox have arrived, so that none counts twice."""

from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from fleet_server.domain.received import Received
from fleet_server.storage import bulk
from fleet_server.storage.tables import epochs, windows


class Outbox(NamedTuple):
    """One device's outbox between two losses of its disk."""

    device: str
    epoch: str


class _Row:
    """One outbox as this transaction leaves it."""

    __slots__ = ("changed", "first", "known", "last", "received", "taken")

    def __init__(self) -> None:
        self.known = False
        self.changed = False
        self.first = self.last = self.taken = 0
        self.received = Received()


class Receipts:
    """What has arrived, within one writing transaction; written once at its end."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._rows: dict[Outbox, _Row] = {}

    def load(self, outboxes: Iterable[Outbox]) -> None:
        """Read several outboxes at once; any other is read when it is asked for."""
        wanted = [outbox for outbox in dict.fromkeys(outboxes) if outbox not in self._rows]
        for start in range(0, len(wanted), 200):
            part = wanted[start : start + 200]
            query = sa.select(epochs).where(sa.tuple_(epochs.c.device, epochs.c.epoch).in_(part))
            for outbox in part:
                self._rows[outbox] = _Row()
            for row in self._connection.execute(query):
                self._rows[Outbox(row.device, row.epoch)] = self._read(row)

    def known(self, device: str, epoch: str, sequence: int) -> bool:
        """Whether a window arrived before, or was given up."""
        return sequence in self._row(device, epoch).received

    def begun(self, device: str, epoch: str) -> bool:
        """Whether a window of this outbox has arrived."""
        return self._row(device, epoch).known

    def take(self, device: str, epoch: str, sequence: int) -> None:
        """Note a window that is not known."""
        row = self._row(device, epoch)
        row.first = min(row.first, sequence) if row.known else sequence
        row.last = max(row.last, sequence) if row.known else sequence
        row.taken += row.received.add(sequence)
        row.known = row.changed = True

    def pass_over(self, device: str, epoch: str, sequence: int) -> None:
        """Note a window that is not stored, so that it does not count as lost.

        Only in a known outbox, so that untrue windows add no rows.
        """
        if self._row(device, epoch).known:
            self.take(device, epoch, sequence)

    def write(self) -> None:
        """Store what changed."""
        rows = [
            {
                **outbox._asdict(),
                "first": row.first,
                "last": row.last,
                "taken": row.taken,
                "received": row.received.pack(),
            }
            for outbox, row in self._rows.items()
            if row.changed
        ]
        bulk.put(self._connection, epochs, rows)

    def _row(self, device: str, epoch: str) -> _Row:
        outbox = Outbox(device, epoch)
        if outbox not in self._rows:
            self.load([outbox])
        return self._rows[outbox]

    def _read(self, stored: sa.Row[tuple[object, ...]]) -> _Row:
        row = _Row()
        row.known = True
        row.first, row.last, row.taken = stored.first, stored.last, stored.taken
        if stored.received is not None:
            row.received = Received.unpack(stored.received)
        else:
            row.received = stored_windows(self._connection, stored.device, stored.epoch)
        return row


def stored_windows(connection: sa.Connection, device: str, epoch: str) -> Received:
    """What arrived of an outbox, by the windows that an earlier server kept for good."""
    query = (
        sa.select(windows.c.sequence)
        .where(windows.c.device == device, windows.c.epoch == epoch)
        .order_by(windows.c.sequence)
    )
    return Received.of(connection.execute(query).scalars())


def settle(connection: sa.Connection, most: int) -> int:
    """Write down what arrived of outboxes that only their windows tell of yet; how many.

    No window may be deleted before its outbox is settled.
    """
    query = sa.select(epochs.c.device, epochs.c.epoch).where(epochs.c.received.is_(None))
    found = connection.execute(query.limit(most)).all()
    for device, epoch in found:
        packed = stored_windows(connection, device, epoch).pack()
        connection.execute(
            epochs.update()
            .where(epochs.c.device == device, epochs.c.epoch == epoch)
            .values(received=packed)
        )
    return len(found)
