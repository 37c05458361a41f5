"""A folder of Parquet parts that is written piece by piece, and goes on after a kill anywhere.

``part-000000.parquet``, ... hold the rows. ``_state-<n>`` says how to go on once the first n parts
are there; it is written before part n - 1, whose appearance is the one moment at which both count.
A part that is there is never written again. ``_done.json`` appears when no part follows. Readers of
Parquet folders pass over names that begin with an underscore.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from converters.history.fingerprint import FileMark
from edge_core import durable
from edge_core.errors import InvalidConfiguration, InvalidInput, Unavailable, quoted

VERSION = 1
DONE = "_done.json"
CLEARING = "_clearing"
"""Stands while ``--restart`` takes away what was there."""
SCRATCH = ".scratch"
"""Folder of what a run needs on its way and nobody after it."""
LOCK = ".lock"
PART = re.compile(r"part-([0-9]{6})\.parquet\Z")
STATE = re.compile(r"_state-([0-9]{6})\Z")
TEMPORARY = re.compile(r"\.(part-[0-9]{6}\.parquet|_state-[0-9]{6}|_done\.json|_clearing)\.tmp\Z")
DIGEST_BYTES = 32


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the rows depend on: a run goes on only where this is the same."""

    command: str
    by: str = "one process"
    """How the work is shared."""
    features: str
    """Sha256 of the feature definition."""
    model: str = ""
    """Release, manifest digest, target and runtime of a model, if one answers."""
    keep: list[str]
    """Further columns."""
    part_rows: int
    """Rows of every part but the last."""
    input: list[FileMark]


SAID = {
    "command": "by another command",
    "by": "with another --dask or --partitions",
    "features": "with other features",
    "model": "with another bundle, target or runtime",
    "keep": "with another --keep",
    "part_rows": "by a Serinus that makes parts of another size",
    "input": "from other input",
}


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file that is finished."""

    name: str
    rows: int
    size: int
    sha256: str


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to go on."""

    v: int = VERSION
    job: Job
    parts: list[Part] = []
    read: int = 0
    """Rows of the input."""
    waiting: bytes = b""
    """Rows for the next part, as an Arrow stream; empty where there are none."""
    work: bytes = b""
    """What the computation remembers; empty at the beginning."""


class Done(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a finished output says of itself."""

    v: int = VERSION
    job: Job
    rows: int
    read: int
    parts: list[Part]
    totals: dict[str, dict[str, int]]
    """What was counted on the way: name -> kind -> count."""


class Output:
    """The folder, while this process alone writes to it."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder = folder
        self.job = job
        self.state = State(job=job)
        self.done: Done | None = None

    @property
    def rows(self) -> int:
        """In finished parts."""
        return sum(part.rows for part in self.state.parts)

    def scratch(self) -> Path:
        """A folder for what is needed on the way; a finished output has none."""
        found = self.folder / SCRATCH
        found.mkdir(exist_ok=True)
        return found

    def save(self, state: State) -> None:
        """Remember a state without a new part."""
        durable.write_bytes(self._state_file(len(state.parts)), _packed(state))
        self.state = state

    def commit(self, data: bytes, rows: int, state: State) -> None:
        """Let the next part appear together with the state after it.

        Args:
            data: the part's file.
            rows: how many it holds.
            state: after it; its ``parts`` are those before it.
        """
        digest = hashlib.sha256(data).hexdigest()
        name = part_name(len(self.state.parts))
        part = Part(name=name, rows=rows, size=len(data), sha256=digest)
        state = self._announce(part, state)
        durable.write_bytes(self.folder / name, data)
        self._count(state)

    def adopt(self, path: Path, part: Part, state: State) -> None:
        """Let a file that was written durably appear as the next part; else as :meth:`commit`."""
        state = self._announce(part, state)
        path.replace(self.folder / part.name)
        durable.sync_folder(self.folder)
        self._count(state)

    def _announce(self, part: Part, state: State) -> State:
        state = msgspec.structs.replace(state, parts=[*self.state.parts, part])
        durable.write_bytes(self._state_file(len(state.parts)), _packed(state))
        return state

    def _count(self, state: State) -> None:
        self.state = state
        self._state_file(len(state.parts) - 1).unlink(missing_ok=True)

    def finish(self, totals: Mapping[str, Mapping[str, int]]) -> Done:
        """Say that no part follows."""
        state = self.state
        done = Done(
            job=self.job,
            rows=self.rows,
            read=state.read,
            parts=state.parts,
            totals={name: dict(counts) for name, counts in totals.items()},
        )
        data = msgspec.json.format(msgspec.json.encode(done), indent=2) + b"\n"
        durable.write_bytes(self.folder / DONE, data)
        self.done = done
        self._sweep(keep=None)
        return done

    def open(self) -> None:
        """See what is there already.

        Raises:
            InvalidConfiguration: it belongs to another run, or to something else altogether.
            InvalidInput: it is damaged.
        """
        if (self.folder / CLEARING).exists():
            self.clear()
        names = [path.name for path in self.folder.iterdir()]
        if foreign := sorted(name for name in names if not _ours(name)):
            raise InvalidConfiguration(
                f"{self.folder} holds other files, such as {foreign[0]}: name a folder of its own"
            )
        parts = sorted(name for name in names if PART.match(name))
        if parts != [part_name(number) for number in range(len(parts))]:
            raise self._damaged("a part is missing")
        if DONE in names:
            self.done = self._read_done()
            self._check(self.done.job, self.done.parts, len(parts))
            self._sweep(keep=None)
            return
        if len(parts) or self._state_file(0).exists():
            self.state = self._read_state(len(parts))
            self._check(self.state.job, self.state.parts, len(parts))
        else:
            self.save(self.state)
        self._sweep(keep=len(parts))

    def begin_anew(self) -> None:
        """Take away what an earlier run left.

        Raises:
            InvalidConfiguration: what is there may be something else.
        """
        names = [path.name for path in self.folder.iterdir()]
        marked = any(name in (DONE, CLEARING) or STATE.match(name) for name in names)
        if not marked and any(PART.match(name) for name in names):
            raise InvalidConfiguration(
                f"{self.folder} has parts, and nothing says whose they are: name another --output, "
                "or remove them by hand"
            )
        self.clear()

    def clear(self) -> None:
        """Remove all files of a run; one that was killed meanwhile is finished by the next."""
        durable.write_bytes(self.folder / CLEARING, b"")
        (self.folder / DONE).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if PART.match(path.name) or STATE.match(path.name):
                path.unlink()
        self._sweep(keep=None)
        durable.sync_folder(self.folder)
        (self.folder / CLEARING).unlink()

    def _check(self, job: Job, parts: list[Part], there: int) -> None:
        """The parts that are there are those of this very run."""
        for field, said in SAID.items():
            if getattr(job, field) != getattr(self.job, field):
                raise InvalidConfiguration(
                    f"{self.folder} was begun {said}: name another --output, or begin it anew with "
                    "--restart"
                )
        sizes = [(self.folder / part.name).stat().st_size for part in parts[:there]]
        if len(parts) != there or sizes != [part.size for part in parts]:
            raise self._damaged("its parts are not those that were written")

    def _read_state(self, parts: int) -> State:
        path = self._state_file(parts)
        if not path.is_file():
            raise self._damaged(f"{path.name} is missing")
        data = path.read_bytes()
        if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
            raise self._damaged(f"{path.name} is not what was written")
        try:
            state = msgspec.msgpack.decode(data[DIGEST_BYTES:], type=State)
        except msgspec.MsgspecError as error:
            raise self._damaged(f"{path.name} is of another version ({quoted(error)})") from error
        if state.v != VERSION:
            raise self._damaged(f"{path.name} has version {state.v}; known is {VERSION}")
        return state

    def _read_done(self) -> Done:
        try:
            done = msgspec.json.decode((self.folder / DONE).read_bytes(), type=Done)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(f"{DONE} is not readable ({quoted(error)})") from error
        if done.v != VERSION:
            raise self._damaged(f"{DONE} has version {done.v}; known is {VERSION}")
        return done

    def _damaged(self, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self.folder} cannot go on: {why}; name another --output, or begin it anew with "
            "--restart"
        )

    def _state_file(self, parts: int) -> Path:
        return self.folder / f"_state-{parts:06d}"

    def _sweep(self, *, keep: int | None) -> None:
        """Remove states but one, and what a killed run left half-written."""
        for path in self.folder.iterdir():
            stale = STATE.match(path.name) and path != self._state_file(keep or 0)
            if stale or TEMPORARY.match(path.name) or (keep is None and STATE.match(path.name)):
                path.unlink()
        if keep is None:
            shutil.rmtree(self.folder / SCRATCH, ignore_errors=True)


@contextlib.contextmanager
def opened(folder: Path, job: Job, *, restart: bool = False) -> Iterator[Output]:
    """An output to begin, or to go on with; nobody else may write to it meanwhile.

    Args:
        folder: where the parts shall stand; made where it is missing.
        job: what they come from.
        restart: take away what is there, and begin anew.

    Raises:
        InvalidConfiguration: what is there belongs to another run, or is none of ours.
        InvalidInput: what is there is damaged.
        Unavailable: another run writes to it; or the disk is full, or refuses.
    """
    if folder.is_file():
        raise InvalidConfiguration(f"{folder} is a file: name a folder of its own")
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            output = Output(folder, job)
            if restart:
                output.begin_anew()
            output.open()
            yield output


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:06d}.parquet"


def _ours(name: str) -> bool:
    whole = name in (DONE, CLEARING, LOCK, SCRATCH)
    return whole or any(known.match(name) for known in (PART, STATE, TEMPORARY))


def _packed(state: State) -> bytes:
    body = msgspec.msgpack.encode(state)
    return hashlib.sha256(body).digest() + body


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                f"another run writes to {folder}: wait for it, or name another --output"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"{error.filename or folder}: {error.strerror}; finished parts are kept: make room, or "
            "set the folder's permissions, and run the command again to go on"
        ) from error
