"""What this machine can do for each target, as people and programs read it."""

from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from converters.targets import open_target
from converters.targets.emulation import Say
from converters.targets.profile import PROFILES, load, names
from converters.targets.target import Tool
from edge_core.errors import InvalidConfiguration, SerinusError


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """One target and its tool."""

    target: str
    description: str
    scheme: str
    tool: Tool

    @property
    def here(self) -> str:
        """What can be done on this machine, in a word or two."""
        if self.tool.compiles and self.tool.runs:
            return "compiles, runs"
        return "compiles only" if self.tool.compiles else "unavailable"


def describe(folder: Path = PROFILES) -> list[Described]:
    """Every profile of a folder; what cannot be looked at is unavailable and says why."""
    return [_described(name, folder) for name in names(folder)]


def _described(name: str, folder: Path) -> Described:
    description, scheme = "", ""
    try:
        profile = load(name, folder)
        description, scheme = profile.description, profile.scheme
        tool = open_target(name, folder).tool()
    except (SerinusError, ImportError) as error:
        tool = Tool(compiles=False, runs=False, by="", missing=str(error))
    return Described(target=name, description=description, scheme=scheme, tool=tool)


def show(console: Console, found: list[Described]) -> None:
    """A table, and below it what is missing with the command that helps."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("target", "scheme", "here", "verified by"):
        table.add_column(column, overflow="fold", no_wrap=column != "verified by")
    for one in found:
        cells = (one.target, one.scheme, one.here, one.tool.by or "-")
        style = {"compiles, runs": "green", "compiles only": "yellow"}.get(one.here, "dim")
        table.add_row(*(Text(cell, style=style if cell == one.here else "") for cell in cells))
    console.print(table)
    for one in found:
        if one.tool.missing:
            console.print(f"{one.target}: {one.tool.missing}", markup=False, highlight=False)


def install(name: str, say: Say) -> None:
    """Install what lacks for a target.

    Raises:
        InvalidConfiguration: the target has nothing that could be installed.
        Unavailable: a package cannot be had.
    """
    target: Any = open_target(name)
    if not hasattr(target, "install"):
        missing = target.tool().missing or "nothing is missing"
        raise InvalidConfiguration(f"{name} has no installation of its own: {missing}")
    target.install(say)
