"""What commands about keys print, and what they ask before they sign."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import typer
from rich.console import Console
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from converters.ceremony import proposal, public_key, wording
from converters.ceremony.expiry import Ending
from converters.ceremony.proposal import Voice
from converters.keys import access, opening
from converters.refusal import CeremonyRefused

LEAST_GIVEN = 16
"""Digits of a fingerprint that stands in the place of being asked."""
LEAST_TYPED = 8

S = TypeVar("S", Root, Targets)


def lines(said: Sequence[str]) -> None:
    """Print lines as they are."""
    out = Console(highlight=False, soft_wrap=True)
    for line in said:
        out.print(line, markup=False)


def proposed(words: Sequence[str], metadata: "Metadata[Root] | Metadata[Targets]") -> None:
    """A proposal in words, with the fingerprint that everybody compares."""
    digest = proposal.fingerprint(metadata)
    lines([*words, f"fingerprint of this proposal: {public_key.fingerprint(digest)}"])


def agree(digest: str, given: str | None) -> None:
    """Go on only with the fingerprint that the others have.

    Raises:
        CeremonyRefused: it is another, or nobody is there to give it.
    """
    least = LEAST_GIVEN
    if given is None:
        if not sys.stdin.isatty():
            raise CeremonyRefused(
                "nobody is here to compare the fingerprint: run this at a terminal, or give the "
                "one that the proposer reads out with --fingerprint"
            )
        least = LEAST_TYPED
        question = f"To sign it, type the first {least} digits that the proposer reads out"
        given = str(typer.prompt(question))
    said = "".join(given.split()).lower()
    if len(said) < least or not digest.startswith(said):
        raise CeremonyRefused(
            f"that is not the fingerprint of this proposal, in {least} digits or more: nothing "
            "was signed; do all of you have the same file?"
        )


def signed(
    path: Path,
    metadata: Metadata[S],
    voters: Mapping[str, Key],
    key: str,
    passphrase_file: Path | None,
) -> Metadata[S]:
    """Sign a proposal's file with a holder's key; returns it with all its signatures.

    Raises:
        CeremonyRefused: the key has no say in it, or the file was changed meanwhile.
        InvalidConfiguration: the key does not open.
    """
    signer = opening.signer(key, access.of_person(passphrase_file))
    made = signer.sign(metadata.signed_bytes)
    holder = proposal.add_signature(metadata, made, voters)
    digest = proposal.fingerprint(metadata)
    together = proposal.write_signature(path, made, type(metadata.signed), digest)
    lines([f"{public_key.holder_of(holder)} has signed {path}"])
    return together


def standing(voices: Sequence[Voice]) -> None:
    """Who has signed and who is missing, by each rule."""
    for voice in voices:
        missing = "enough" if not voice.missing else f"{voice.missing} missing"
        left = f"; not yet: {wording.holders(voice.unsigned)}" if voice.unsigned else ""
        lines(
            [
                f"{voice.rule}: {len(voice.signed)} of {voice.threshold} signatures, {missing}; "
                f"signed: {wording.holders(voice.signed)}{left}"
            ]
        )


def endings(found: Sequence[Ending]) -> None:
    """What of the repository ends when."""
    for ending in found:
        when = f"ends {ending.expires:%Y-%m-%d %H:%M}Z" if ending.expires else "  "
        todo = "" if ending.standing == "good" else f": {ending.standing}; {ending.fix}"
        lines([f"{ending.role:10} version {ending.version:<5} {when:22}{todo}"])
