"""Options that commands about keys share, and how they are read. Arguments only."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from converters.refusal import WrongUse

if TYPE_CHECKING:
    from securesystemslib.signer import Key

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="File whose first line is the passphrase or PIN; else SERINUS_KEY_PASSPHRASE, else "
        "it is asked for."
    ),
]
NoPassphrase = Annotated[
    bool,
    typer.Option(
        "--no-passphrase", help="Write keys that whoever reads the file can use: tests, CI stores."
    ),
]
KeyPlace = Annotated[
    str, typer.Option(help="Key file, or pkcs11:token=LABEL;object=NAME for a key on a token.")
]
Repository = Annotated[
    Path, typer.Option(help="Release repository, or a folder with a copy of its metadata folder.")
]
Trusted = Annotated[
    Path | None,
    typer.Option(
        "--trusted-root",
        help="Your own copy of a root to start from; else the repository's first one.",
    ),
]
Out = Annotated[Path, typer.Option(help="Proposal to write; must not exist.")]
ExpiresIn = Annotated[str, typer.Option(help="Its life from now, such as 365d.")]
Fingerprint = Annotated[
    str | None,
    typer.Option(
        help="Proposal's fingerprint, as the others read it out: sign without being asked."
    ),
]
Copy = Annotated[
    Path | None,
    typer.Option("--repository", help="Release repository or a copy; not for the first root."),
]
Proposal = Annotated[Path, typer.Argument(metavar="PROPOSAL", help="File that propose wrote.")]
Proposals = Annotated[
    list[Path],
    typer.Argument(metavar="PROPOSAL...", help="The file; with copies, their signatures add up."),
]
Delegation = Annotated[
    list[Path] | None,
    typer.Option(help="Signed delegation to publish with it, where the targets key is replaced."),
]
Within = Annotated[
    str, typer.Option(help="Exit code 3 where something that people sign ends so soon.")
]


def now() -> datetime:
    """This moment, in the whole seconds that TUF knows."""
    return datetime.now(UTC).replace(microsecond=0)


def span(text: str, option: str) -> timedelta:
    """Days, as ``30d``; raise :class:`WrongUse`."""
    found = re.fullmatch(r"(\d{1,4})d", text)
    if not found:
        raise WrongUse(f"{option} {text[:40]}: write days, such as 30d")
    return timedelta(days=int(found[1]))


def pairs(given: Sequence[str] | None, option: str, known: Sequence[str]) -> list[tuple[str, str]]:
    """``ROLE=VALUE`` of an option that may be given several times; raise :class:`WrongUse`."""
    found = []
    for text in given or ():
        role, equals, value = text.partition("=")
        if role not in known or not equals or not value:
            raise WrongUse(f"{option} {text[:80]}: write ROLE=..., ROLE is {', '.join(known)}")
        found.append((role, value))
    return found


def public_keys(given: Sequence[tuple[str, str]]) -> "list[tuple[str, Key]]":
    """Read the files of ``ROLE=FILE``."""
    from converters.ceremony import public_key

    return [(role, public_key.read(Path(path))) for role, path in given]


def refuse_existing(path: Path) -> None:
    """Raise :class:`WrongUse` rather than write over a proposal."""
    if path.exists():
        raise WrongUse(f"{path} exists already: name another file with --out")
    if not path.parent.is_dir():
        raise WrongUse(f"there is no folder {path.parent}")


def count(text: str, option: str) -> int:
    """A number of signatures; raise :class:`WrongUse`."""
    if not re.fullmatch(r"\d{1,3}", text):
        raise WrongUse(f"{option} {text[:40]}: write ROLE=N, such as root=2")
    return int(text)
