"""The settings as a list, made from their classes: what both views of them are written from."""

import ast
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from edge_agent import config
from edge_agent.config import AgentConfig

SECRET_WORDS = ("password", "secret", "token")


class Setting(NamedTuple):
    """One key of the settings file."""

    section: str
    """Empty at the top of the file."""
    key: str
    kind: Any
    default: Any
    """``msgspec.NODEFAULT`` where the file has to give it."""
    meaning: str

    @property
    def path(self) -> str:
        """As messages name it."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def required(self) -> bool:
        """Whether the file, or the section where there is one, has to give it."""
        return self.default is msgspec.NODEFAULT

    @property
    def secret(self) -> bool:
        """Whether nobody may see its value."""
        return any(word in self.key for word in SECRET_WORDS)


def all_settings() -> list[Setting]:
    """Every setting in the order of the file: plain ones, then section by section."""
    meanings = _meanings()
    found = list(_of(AgentConfig, "", meanings))
    for name, section in sections().items():
        found += _of(section, name, meanings)
    return found


def sections() -> dict[str, type[msgspec.Struct]]:
    """The tables of the file by name."""
    kinds = typing.get_type_hints(AgentConfig)
    found = {name: section_of(kinds[name]) for name in AgentConfig.__struct_fields__}
    return {name: section for name, section in found.items() if section is not None}


def optional_sections() -> set[str]:
    """Tables that may be left out with all of their required keys."""
    return {field.name for field in msgspec.structs.fields(AgentConfig) if field.default is None}


def section_meaning(section: type[msgspec.Struct]) -> str:
    """The first line of a table's description."""
    return (section.__doc__ or "").strip().splitlines()[0]


def section_of(kind: Any) -> type[msgspec.Struct] | None:
    """The table that a type means, alone or as an alternative to none."""
    alternatives = typing.get_origin(kind) in (typing.Union, types.UnionType)
    choices = typing.get_args(kind) if alternatives else (kind,)
    for choice in choices:
        if isinstance(choice, type) and issubclass(choice, msgspec.Struct):
            return choice
    return None


def _of(
    section: type[msgspec.Struct], name: str, meanings: dict[tuple[str, str], str]
) -> Iterator[Setting]:
    kinds = typing.get_type_hints(section)
    for field in msgspec.structs.fields(section):
        if section_of(kinds[field.name]) is not None:
            continue
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        meaning = meanings.get((section.__name__, field.name), "")
        yield Setting(name, field.name, kinds[field.name], default, meaning)


def _meanings() -> dict[tuple[str, str], str]:
    """What stands below each field in the source; nothing where only bytecode is installed."""
    try:
        tree = ast.parse(inspect.getsource(config))
    except OSError:
        return {}
    found = {}
    for section in tree.body:
        if not isinstance(section, ast.ClassDef):
            continue
        for field, after in zip(section.body, section.body[1:], strict=False):
            match field, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[section.name, name] = " ".join(text.split()).replace("``", "'")
    return found
