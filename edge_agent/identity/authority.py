"""The fleet's server as who certifies devices: two requests, and what is taken of answers."""

import base64
from typing import Protocol, TypeVar

import msgspec

from edge_agent.identity.files import Certificate, IdentityFiles, certificate
from edge_agent.identity.keys import FileKey
from edge_agent.identity.trust import Trust
from edge_agent.timed_http import TimedHttp
from edge_core.errors import InvalidMessage, SerinusError, Unavailable, printable
from edge_core.messages.enrolment import (
    Enrolled,
    EnrolRequest,
    Holder,
    RenewRequest,
    enrol_statement,
    renew_statement,
)

SECONDS = 30.0
MAX_ANSWER = 64 * 1024
CREATED = 201
T = TypeVar("T")


class NotEnrolled(SerinusError):
    """The server will not certify this device, and says why."""


class HolderKey(Protocol):
    """A key that vouches for the device."""

    @property
    def public_pem(self) -> str:
        """Its public half."""
        ...

    def sign(self, statement: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        ...


class Authority:
    """Asks one server. Blocking."""

    def __init__(self, server: str, http: TimedHttp, trust: Trust) -> None:
        """Take parts; ``trust`` learns from every answer."""
        self._url = f"{server.rstrip('/')}/api/v1"
        self._http = http
        self._trust = trust

    def enrol(
        self, files: IdentityFiles, device: str, token: str, hardware: HolderKey | None
    ) -> Certificate:
        """Have the device's first certificate made, or one for another key.

        Raises:
            NotEnrolled: the server refuses.
            Unavailable: the server cannot be reached, or is not the one that is trusted.
            InvalidMessage: its answer is not what was asked for.
            NoDisk: the key or the certificate cannot be kept.
        """
        key = files.next_key()
        csr, der = key.request(device)
        holder = None
        if hardware is not None:
            signature = _text(hardware.sign(enrol_statement(device, der)))
            holder = Holder(key=hardware.public_pem, signature=signature)
        request = EnrolRequest(token=token, device=device, csr=csr, holder=holder)
        return self._certified(files, key, device, "enrol", request)

    def renew(
        self, files: IdentityFiles, present: Certificate, signer: HolderKey, now_ms: int
    ) -> Certificate:
        """Have the next certificate made, for a new key; raises as :meth:`enrol`."""
        key = files.next_key()
        if key.public_pem == present.public_pem:  # left by a power cut just after it was certified
            files.forget_next()
            key = files.next_key()
        csr, der = key.request(present.device)
        signature = _text(signer.sign(renew_statement(present.serial, now_ms, der)))
        request = RenewRequest(serial=present.serial, at_ms=now_ms, csr=csr, signature=signature)
        return self._certified(files, key, present.device, "enrol/renew", request)

    def _certified(
        self, files: IdentityFiles, key: FileKey, device: str, path: str, request: msgspec.Struct
    ) -> Certificate:
        status, body = self._http.post(
            f"{self._url}/{path}", msgspec.json.encode(request), seconds=SECONDS, most=MAX_ANSWER
        )
        if status != CREATED:
            refusal = _refusal(status, body)
            if isinstance(refusal, NotEnrolled):
                files.forget_next()  # the key may be what it does not like
            raise refusal
        answer = _decoded(body, Enrolled)
        made = certificate(answer.certificate.encode())
        if made.device != device or made.public_pem != key.public_pem:
            raise InvalidMessage("the server answers with a certificate of another device or key")
        self._trust.learn(answer.chain)  # first: who has a certificate is taken to have learnt
        files.take(key, answer.certificate)
        return made


class _Problem(msgspec.Struct):
    detail: str = ""


def _refusal(status: int, body: bytes) -> SerinusError:
    try:
        said = printable(msgspec.json.decode(body, type=_Problem).detail[:500])
    except msgspec.MsgspecError:
        said = f"status {status}"
    if status in (429, 502, 503, 504) or status >= 500:
        return Unavailable(f"the server cannot certify the device now: {said}")
    return NotEnrolled(f"the server does not certify this device: {said}")


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidMessage("the server does not answer as a Serinus server does") from error


def _text(signature: bytes) -> str:
    return base64.b64encode(signature).decode()
