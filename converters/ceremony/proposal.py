"""A proposal: TUF metadata in a file, to which people add signatures on machines apart.

The file is the metadata as it will stand in the repository. What was signed cannot change without
the signature failing, and everybody sees the same fingerprint: the digest of the signed bytes.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError, SerializationError

from converters.ceremony import public_key
from converters.refusal import CeremonyRefused
from edge_core import durable
from edge_core.bundle.digest import sha256_bytes
from edge_core.errors import InvalidConfiguration, quoted

MAX_PROPOSAL_BYTES = 1024 * 1024

S = TypeVar("S", Root, Targets)


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that a proposal has to satisfy: so many of these keys."""

    rule: str
    """Such as ``by version 3``."""
    threshold: int
    signed: tuple[Key, ...]
    unsigned: tuple[Key, ...]

    @property
    def missing(self) -> int:
        """Signatures that are needed still."""
        return max(0, self.threshold - len(self.signed))


def write(path: Path, metadata: "Metadata[Root] | Metadata[Targets]") -> None:
    """Write a proposal or its signatures; what stood there before is whole until then."""
    durable.write_bytes(path, metadata.to_bytes())


def read(path: Path, kind: type[S]) -> Metadata[S]:
    """Read a proposal; nothing is verified.

    Raises:
        InvalidConfiguration: it cannot be read, or is not metadata of this kind.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_PROPOSAL_BYTES + 1)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_PROPOSAL_BYTES:
        raise InvalidConfiguration(f"{path} has over {MAX_PROPOSAL_BYTES} bytes: it is no proposal")
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
        _ = metadata.signed_bytes  # what people sign has to have a canonical form
    except (DeserializationError, SerializationError, RecursionError) as error:
        raise InvalidConfiguration(f"{path} is not a proposal: {quoted(error)}") from error
    if not isinstance(metadata.signed, kind):
        raise InvalidConfiguration(
            f"{path} is {metadata.signed.type} metadata; this command is for {kind.type}"
        )
    return metadata


def fingerprint(metadata: "Metadata[Root] | Metadata[Targets]") -> str:
    """Hex digest of what is signed."""
    return sha256_bytes(metadata.signed_bytes)


def merged(paths: Sequence[Path], kind: type[S]) -> Metadata[S]:
    """One proposal with the signatures of all its copies.

    Raises:
        CeremonyRefused: two files propose different things.
    """
    first = read(paths[0], kind)
    for path in paths[1:]:
        other = read(path, kind)
        if fingerprint(other) != fingerprint(first):
            raise CeremonyRefused(
                f"{paths[0]} and {path} are different proposals: "
                f"{public_key.fingerprint(fingerprint(first))} and "
                f"{public_key.fingerprint(fingerprint(other))}; agree on one and sign that"
            )
        for keyid, signature in other.signatures.items():
            first.signatures.setdefault(keyid, signature)
    return first


def check_signatures(
    metadata: "Metadata[Root] | Metadata[Targets]", voters: Mapping[str, Key]
) -> None:
    """Refuse a proposal that carries a signature which is not for it.

    Raises:
        CeremonyRefused: it was changed after somebody signed, or a foreign key signed.
    """
    for keyid, signature in metadata.signatures.items():
        key = voters.get(keyid)
        if key is None:
            raise CeremonyRefused(
                f"the proposal carries a signature of {keyid[:16]}, which has no say in it: "
                "propose again and sign that"
            )
        if not _valid(key, signature, metadata.signed_bytes):
            raise CeremonyRefused(
                f"the signature of {public_key.holder_of(key)} is not for this proposal: it was "
                "changed after that; propose again and sign that"
            )


def write_signature(path: Path, signature: Signature, kind: type[S], digest: str) -> Metadata[S]:
    """Put a signature into a proposal's file beside those that others put there meanwhile.

    Raises:
        CeremonyRefused: the file proposes something else by now.
    """
    with _locked(path.parent):
        metadata = read(path, kind)
        if fingerprint(metadata) != digest:
            raise CeremonyRefused(f"{path} was changed while you signed: propose again")
        metadata.signatures[signature.keyid] = signature
        write(path, metadata)
    return metadata


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def add_signature(
    metadata: "Metadata[Root] | Metadata[Targets]",
    signature: Signature,
    voters: Mapping[str, Key],
) -> Key:
    """Add a holder's signature; returns the holder's key.

    Raises:
        CeremonyRefused: the key has no say in this proposal.
    """
    key = voters.get(signature.keyid)
    if key is None or not _valid(key, signature, metadata.signed_bytes):
        names = ", ".join(public_key.told(key) for key in voters.values())
        raise CeremonyRefused(
            f"this key, {public_key.fingerprint(signature.keyid)}, has no say in this proposal; "
            f"these have: {names}"
        )
    metadata.signatures[signature.keyid] = signature
    return key


def voices(
    metadata: "Metadata[Root] | Metadata[Targets]",
    rules: Sequence[tuple[str, Root]],
) -> list[Voice]:
    """Who has signed and who has not, by each of the roots that have to agree."""
    found = []
    for rule, root in rules:
        role = metadata.signed.type
        result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        keys = [root.keys[keyid] for keyid in root.roles[role].keyids]
        found.append(
            Voice(
                rule=rule,
                threshold=result.threshold,
                signed=tuple(key for key in keys if key.keyid in result.signed),
                unsigned=tuple(key for key in keys if key.keyid in result.unsigned),
            )
        )
    return found


def check_enough(found: Sequence[Voice]) -> None:
    """Refuse a proposal that lacks signatures; raise :class:`CeremonyRefused`."""
    for voice in found:
        if voice.missing:
            names = ", ".join(public_key.holder_of(key) for key in voice.unsigned)
            raise CeremonyRefused(
                f"{voice.rule}, {voice.missing} more of {names} has to sign: {len(voice.signed)} "
                f"of {voice.threshold} signatures are there"
            )


def check_next(role: str, version: int, current: int) -> None:
    """Refuse a version that does not follow; raise :class:`CeremonyRefused`."""
    if version != current + 1:
        raise CeremonyRefused(
            f"the proposal is version {version} of {role}, the repository's is {current}: only "
            f"{current + 1} can follow; propose again from there"
        )


def _valid(key: Key, signature: Signature, data: bytes) -> bool:
    with contextlib.suppress(UnverifiedSignatureError, VerificationError):
        key.verify_signature(signature, data)
        return True
    return False
