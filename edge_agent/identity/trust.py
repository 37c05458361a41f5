"""Whom the device trusts as its fleet: the certificates it was given, or those it has learnt.

An authority may get a successor. What a device gets with each certificate names all that the
fleet trusts from then on; that takes the place of the fleet's authorities in
``identity.ca_file``, as long as the file stays the same. Authorities of others in it, who certify
the server or the broker, stay.
"""

import hashlib
import ssl
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent import tls
from edge_agent.identity.files import IdentityFiles
from edge_agent.tls import Followed
from edge_core.errors import InvalidConfiguration, InvalidMessage, Unavailable

TRUSTED_VERSION = 1
MOST_AUTHORITIES = 8
"""Certificates of one answer; a succession needs two."""
BEGIN = "-----BEGIN "


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the latest answer."""

    version: int
    instead_of: str
    """sha256 of the ca_file whose place it takes, hex."""
    certificates: str
    """PEM."""
    beside: str = ""
    """Certificates (PEM) of the ca_file that are not the fleet's."""


class Trust:
    """The fleet's authorities, and connections that follow them."""

    def __init__(self, files: IdentityFiles, ca_file: Path) -> None:
        """Read what was given and what was learnt.

        Raises:
            InvalidConfiguration: a file cannot be read.
        """
        self._files = files
        self._given = _read(ca_file)
        self._digest = hashlib.sha256(self._given).hexdigest()
        self._kept = _kept(files.learnt(), self._digest)
        self._following: list[tuple[Followed, Path | None]] = []

    @property
    def learnt(self) -> str | None:
        """Certificates (PEM) that take the place of the file that was given; none where none do."""
        return None if self._kept is None else self._kept.certificates + self._kept.beside

    def context(self, ca_file: Path, own: Path | None = None) -> ssl.SSLContext:
        """TLS that trusts what this file stands for, from one connection to the next.

        Args:
            ca_file: certificates (PEM); those learnt take its place where it is the same as given.
            own: the device's certificate and key (PEM), where it shows one.

        Raises:
            InvalidConfiguration: a file cannot be used.
        """
        if _read(ca_file) != self._given:
            return tls.trusting(ca_file, own)
        learnt = self.learnt
        found = tls.trusting(ca_file, own) if learnt is None else tls.trusting_these(learnt, own)
        context = Followed(found)
        self._following.append((context, own))
        return context

    def learn(self, chain: str) -> None:
        """Trust these certificates instead, which the fleet has answered with.

        Nothing is learnt where the file that was given holds none of the fleet's authorities: then
        others certify whom the device speaks with.

        Raises:
            InvalidMessage: they are none, or not all are of authorities; nothing changes.
            Unavailable: connections cannot go over to them; nothing changes.
            NoDisk: they cannot be kept; nothing changes.
        """
        answered = _authorities(chain)
        if self._kept is None:
            given = _certificates(self._given.decode(errors="replace"))
            if not set(given) & set(answered):
                return
            beside = "".join(one for one in given if one not in answered)
        else:
            beside = self._kept.beside
        kept = Learnt(
            version=TRUSTED_VERSION,
            instead_of=self._digest,
            certificates="".join(answered),
            beside=beside,
        )
        if kept == self._kept:
            return
        try:
            text = kept.certificates + kept.beside
            made = [(one, tls.trusting_these(text, own)) for one, own in self._following]
        except InvalidConfiguration as error:  # no setting is wrong: it may go another time
            raise Unavailable(str(error)) from error
        self._files.keep_learnt(msgspec.json.encode(kept))
        self._kept = kept
        for one, context in made:
            one.follow(context)


def _certificates(text: str) -> list[str]:
    """Certificates (PEM) in a file that was given, written anew; none where it holds none."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return []
    return [one.public_bytes(Encoding.PEM).decode() for one in found]


def _authorities(chain: str) -> list[str]:
    """Certificates (PEM) and nothing beside them, all of authorities; else ``InvalidMessage``."""
    try:
        found = x509.load_pem_x509_certificates(chain.encode())
        for certificate in found:
            limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
            if not limits.value.ca:
                raise InvalidMessage("the server's chain holds a certificate of no authority")
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise InvalidMessage("the server's chain holds no certificates of authorities") from error
    if chain.count(BEGIN) != len(found):  # one that is cut off is passed over when it is read
        raise InvalidMessage("the server's chain of authorities is not whole")
    if len(found) > MOST_AUTHORITIES:
        raise InvalidMessage(f"the server's chain holds more than {MOST_AUTHORITIES} certificates")
    return [one.public_bytes(Encoding.PEM).decode() for one in found]


def _kept(data: bytes | None, digest: str) -> Learnt | None:
    """What was learnt instead of a file of this digest; none where that is void or damaged."""
    if data is None:
        return None
    try:
        found = msgspec.json.decode(data, type=Learnt)
        _authorities(found.certificates)
        if found.beside and len(_certificates(found.beside)) != found.beside.count(BEGIN):
            return None
    except (msgspec.MsgspecError, InvalidMessage):
        return None  # what the operator gave stands
    if found.version != TRUSTED_VERSION or found.instead_of != digest:
        return None
    return found


def _read(ca_file: Path) -> bytes:
    try:
        return ca_file.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot use ca_file {ca_file}: {error.strerror}; give the fleet's certificate, as "
            "'serinus certificate authority' prints it"
        ) from error
