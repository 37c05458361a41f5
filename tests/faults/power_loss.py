"""Power loss: what was not flushed may be gone, cut short, torn, or kept in another order.

An update is recorded with its fsyncs. For every operation, disk states are built that POSIX
allows at that moment: a file's bytes are safe once it was flushed, a folder's entries once the
folder was. Everything later may be there or not, entry by entry. A device is started on each.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.update.journal import Journal
from edge_agent.update.slots import Slots
from tests.faults.case import Case, Site
from tests.faults.device import Fault
from tests.faults.operations import Operation, watch

Node = int
"""Number of a file or folder for its whole life; the disk uses its own numbers again."""
Entry = tuple[Node, str]
"""A name in a folder."""


@dataclass
class Tree:
    """Folders and files as a graph, so that a folder moves with all that it holds."""

    root: Node
    folders: dict[Node, dict[str, Node]] = field(default_factory=dict)
    files: dict[Node, bytes] = field(default_factory=dict)

    def copy(self) -> "Tree":
        folders = {node: dict(names) for node, names in self.folders.items()}
        return Tree(self.root, folders, dict(self.files))

    def entries(self) -> dict[Entry, Node]:
        return {(n, name): c for n, names in self.folders.items() for name, c in names.items()}

    def write(self, folder: Path) -> None:
        """Make it on the disk, as far as it hangs together."""
        self._write(self.root, folder)

    def _write(self, node: Node, path: Path) -> None:
        if node in self.folders:
            path.mkdir()
            for name, child in self.folders[node].items():
                self._write(child, path / name)
        else:
            path.write_bytes(self.files.get(node, b""))

    def digest(self) -> str:
        return hashlib.sha256(repr(self._said(self.root)).encode()).hexdigest()

    def _said(self, node: Node) -> object:
        if node not in self.folders:
            return hashlib.sha256(self.files.get(node, b"")).hexdigest()
        return [(n, self._said(c)) for n, c in sorted(self.folders[node].items())]


class Disk:
    """The state folder as programs see it now, and what of it is safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[int, Node] = {}
        self._next = 0
        self.seen = self._read()
        self.safe = self.seen.copy()

    def look(self) -> None:
        """See what programs see."""
        self.seen = self._read()

    def flushed(self, path: str) -> None:
        """A file or folder reached the disk."""
        self.look()
        node = self._numbers.get(Path(path).stat().st_ino)
        if node is None:
            return  # removed or replaced meanwhile
        if node in self.seen.folders:
            self.safe.folders[node] = dict(self.seen.folders[node])
            for child in self.seen.folders[node].values():
                if child in self.seen.folders:  # a folder whose own names were never flushed
                    self.safe.folders.setdefault(child, {})
        else:
            self.safe.files[node] = self.seen.files[node]

    def _read(self) -> Tree:
        there: dict[int, Node] = {}
        tree = Tree(self._node(self._folder.stat().st_ino, there))
        self._walk(self._folder, tree.root, tree, there)
        self._numbers = there
        return tree

    def _node(self, inode: int, there: dict[int, Node]) -> Node:
        if inode not in self._numbers:
            self._next += 1
            self._numbers[inode] = self._next
        there[inode] = self._numbers[inode]
        return there[inode]

    def _walk(self, folder: Path, node: Node, tree: Tree, there: dict[int, Node]) -> None:
        names = tree.folders.setdefault(node, {})
        for entry in os.scandir(folder):
            if entry.name.startswith("outbox.db"):
                continue  # sqlite's files have a test of their own
            child = self._node(entry.inode(), there)
            names[entry.name] = child
            if entry.is_dir():
                self._walk(folder / entry.name, child, tree, there)
            else:
                tree.files[child] = Path(entry).read_bytes()

    def states(self) -> Iterator[tuple[str, Tree]]:
        """What may be on the disk when the power goes now."""
        yield "nothing unflushed", self.safe
        yield from self._torn()
        before, after = self.safe.entries(), self.seen.entries()
        changed = sorted(e for e in {*before, *after} if before.get(e) != after.get(e))
        for entry in changed:
            name = entry[1]
            yield f"only {name}", self._with(self.safe, entry, after.get(entry))
            yield f"all but {name}", self._with(self.seen, entry, before.get(entry))

    def _torn(self) -> Iterator[tuple[str, Tree]]:
        """All names are there, the bytes of unflushed files are not, or not all."""
        unsafe = {n: data for n, data in self.seen.files.items() if self.safe.files.get(n) != data}
        kinds = {
            "old or empty": lambda node, data: self.safe.files.get(node, b""),
            "half": lambda node, data: data[: len(data) // 2],
            "zeros": lambda node, data: bytes(len(data)),
            "torn": lambda node, data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        }
        for kind, change in kinds.items():
            tree = self.seen.copy()
            tree.files |= {node: change(node, data) for node, data in unsafe.items()}
            yield kind, tree

    def _with(self, tree: Tree, entry: Entry, child: Node | None) -> Tree:
        """The tree with one entry as in the other one; what it holds may be unflushed, or not."""
        made = tree.copy()
        if tree is self.seen:  # the old bytes behind a name that was given to a newer file
            made.files = {**self.safe.files, **self.seen.files}
        folder, name = entry
        if folder not in made.folders:
            return made
        if child is None:
            made.folders[folder].pop(name, None)
            return made
        made.folders[folder][name] = child
        self._fill(made, child)
        return made

    def _fill(self, tree: Tree, node: Node) -> None:
        """Give a folder that came into the tree what was in it."""
        for source in (self.safe, self.seen):
            if node in source.folders:
                tree.folders.setdefault(node, dict(source.folders[node]))
        for child in tree.folders.get(node, {}).values():
            self._fill(tree, child)


def record(site: Site) -> dict[str, Path]:
    """Build every state of an update on the disk; their folders by the names of the points."""
    stage = site.stage
    states = stage.folder / "states"
    if states.exists():
        shutil.rmtree(states)
    states.mkdir()
    with site.device(before="one") as device:
        done: set[str] = set()
        number = 0
        disk = Disk(device.state)

        def meet(operation: Operation) -> None:
            nonlocal number
            number += 1
            disk.look()
            for kind, tree in disk.states():
                digest = tree.digest()
                if digest not in done:
                    done.add(digest)
                    name = f"{number}-{len(done)}"
                    tree.write(states / name)
                    with (states / "told.jsonl").open("a") as told:
                        told.write(json.dumps([name, str(operation), kind]) + "\n")
            if operation.kind == "fsync":
                # It is about to happen; what it flushes is what is seen now.
                disk.flushed(operation.path)

        device.start(lambda: watch(device.state, meet))
        device.want(stage.new)
        device.committed(stage.new)
        device.agent.stop()
    return {path.name: path for path in states.iterdir() if stat.S_ISDIR(path.stat().st_mode)}


def _points(site: Site) -> list[str]:
    found = record(site)
    return site.some(sorted(found, key=lambda name: [int(n) for n in name.split("-")]), 12)


def _told(folder: Path, point: str) -> str:
    """Before which operation the power went, and what of it was lost."""
    lines = (folder / "states" / "told.jsonl").read_text().splitlines()
    return next((line for line in lines if json.loads(line)[0] == point), "")


def _run(site: Site, point: str) -> None:
    stage = site.stage
    with site.device() as device:
        shutil.copytree(stage.folder / "states" / point, device.state)
        # A torn one would be recovered from, but durable writes leave none.
        if Journal(device.state).read().state == "unreadable":
            raise Fault(f"the journal is torn: {_told(stage.folder, point)}")
        if Slots(device.state).pointer() is None:
            raise Fault(f"the pointer is torn or gone: {_told(stage.folder, point)}")
        device.revision = 10
        device.want(stage.new)
        device.start()
        device.served_by([stage.old, stage.new])
        device.committed(stage.new)
        device.truthful()
        device.tidy(stage.old, stage.new)


CASES = [
    Case(
        name="power_loss",
        what="every order in which unflushed writes and names of an update may be lost",
        points=_points,
        run=_run,
    )
]
