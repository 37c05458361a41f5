"""Shows a chain: a tree for people, JSON for programs."""

import msgspec
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from converters.figures import printable
from converters.tracing.link import Chain, Link

UNBROKEN = 10_000
"""Columns for files and pipes, where a line is to stay one."""
STYLES = {"verified": "green", "unknown": "yellow", "broken": "bold red"}
WORDS = {"verified": "verified", "unknown": "not all known", "broken": "BROKEN"}


def show(console: Console, chain: Chain) -> None:
    """Print the tree."""
    tree = Tree(Text(printable(f"{chain.release}, manifest {chain.digest}")))
    for link in chain.links:
        branch = tree.add(Text(f"{link.name}: {WORDS[link.state]}", style=STYLES[link.state]))
        for text, style in _lines(link):
            branch.add(Text(printable(text), style=style))
    console.print(tree)


def as_json(chain: Chain) -> str:
    """The chain with every link's state."""
    shown = msgspec.to_builtins(chain)
    shown["state"] = chain.state
    for entry, link in zip(shown["links"], chain.links, strict=True):
        entry["state"] = link.state
    return msgspec.json.encode(shown).decode()


def _lines(link: Link) -> list[tuple[str, str]]:
    return [
        *((f"{fact.name}: {fact.value}", "") for fact in link.facts),
        *((text, STYLES["broken"]) for text in link.broken),
        *((text, STYLES["unknown"]) for text in link.unknown),
    ]
