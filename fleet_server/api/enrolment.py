"""Enrolment: tokens that let devices in, and the certificates that they get."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from edge_core.messages import enrolment as messages
from edge_core.messages.enrolment import (
    MAX_CSR_BYTES,
    MAX_KEY_BYTES,
    MAX_SIGNATURE_BYTES,
    MAX_TOKEN,
    Enrolled,
)
from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.paging import Cursor, Limit, page, place_of
from fleet_server.api.schemas import Answer, items
from fleet_server.services.certificates import CertificateView
from fleet_server.services.enrol_tokens import EnrolTokenView

PEM = "application/x-pem-file"
LARGEST_MS = 1 << 53

router = APIRouter(default_response_class=Answer)

Csr = Annotated[str, Field(min_length=1, max_length=MAX_CSR_BYTES)]
Signature = Annotated[str, Field(min_length=1, max_length=MAX_SIGNATURE_BYTES)]
Serial = Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
Device = Annotated[str, Field(min_length=1, max_length=64, examples=["watch-01"])]


class CreateEnrolToken(BaseModel):
    """Body of POST /enrol/tokens."""

    model_config = ConfigDict(extra="forbid")

    devices: str = Field(min_length=1, max_length=64, examples=["watch-01", "watch-*"])
    uses: int = Field(default=1, ge=1, le=100_000)
    reenrol: bool = False
    """Whether the name may go to another key; the certificates before are revoked then."""
    expires_ms: int | None = Field(default=None, ge=0, le=LARGEST_MS)
    """Left out: a day from now."""


class CreatedEnrolToken(msgspec.Struct, frozen=True):
    """An enrolment token that was made."""

    secret: str
    """Shown this once."""


class HolderKey(BaseModel):
    """A key in hardware that vouches for the certified one."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=MAX_KEY_BYTES)
    signature: Signature


class Enrol(BaseModel):
    """Body of POST /enrol."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=MAX_TOKEN)
    device: Device
    csr: Csr
    holder: HolderKey | None = None


class Renew(BaseModel):
    """Body of POST /enrol/renew."""

    model_config = ConfigDict(extra="forbid")

    serial: Serial
    at_ms: int = Field(ge=0, le=LARGEST_MS)
    csr: Csr
    signature: Signature


class Revoke(BaseModel):
    """Body of POST /certificates/revoke: one of serial and device."""

    model_config = ConfigDict(extra="forbid")

    serial: Serial | None = None
    device: Device | None = None
    reason: str = Field(default="", max_length=500)


@router.post("/enrol/tokens", status_code=201)
@answers.one(CreatedEnrolToken)
def create_enrol_token(body: CreateEnrolToken, services: ServicesOf, token: Operator) -> Response:
    """Make an enrolment token; its secret is shown this once.

    An Idempotency-Key is not taken: the answer would have to be stored with the secret.
    """
    secret = services.enrol_tokens.create(
        body.devices,
        uses=body.uses,
        reenrol=body.reenrol,
        expires_ms=body.expires_ms,
        by=(token.name, token.role),
    )
    return Answer(CreatedEnrolToken(secret=secret), status_code=201)


@router.get("/enrol/tokens")
@answers.items(EnrolTokenView)
def list_enrol_tokens(services: ServicesOf, _token: Operator) -> Response:
    """List the enrolment tokens, oldest first, without their secrets."""
    return items(services.enrol_tokens.every())


@router.delete("/enrol/tokens/{name}", status_code=204)
def revoke_enrol_token(name: str, services: ServicesOf, token: Operator) -> Response:
    """End an enrolment token, named by its first digits; its certificates stay."""
    services.enrol_tokens.revoke(name, (token.name, token.role))
    return Response(status_code=204)


@router.post("/enrol", status_code=201)
@answers.one(Enrolled)
def enrol(body: Enrol, services: ServicesOf) -> Response:
    """Make a device's certificate for an enrolment token; needs no API token.

    Asked again with the same key and token, it gives the same certificate and takes no use.
    """
    asked = msgspec.convert(body.model_dump(), messages.EnrolRequest)
    return Answer(services.enrolment.enrol(asked), status_code=201)


@router.post("/enrol/renew", status_code=201)
@answers.one(Enrolled)
def renew(body: Renew, services: ServicesOf) -> Response:
    """Make a device's next certificate, signed for by the key of the one it has; no API token."""
    asked = msgspec.convert(body.model_dump(), messages.RenewRequest)
    return Answer(services.enrolment.renew(asked), status_code=201)


@router.get("/certificates")
@answers.part(CertificateView)
def list_certificates(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    device: Annotated[str | None, Query(max_length=64)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List certificates of devices, newest first."""
    place = place_of(cursor, tuple[int, str])
    found = services.certificates.page(limit + 1, place, device=device)
    return page(request, found, limit, lambda row: (row.issued_ms, row.serial))


@router.post("/certificates/revoke")
@answers.items(CertificateView)
def revoke_certificates(body: Revoke, services: ServicesOf, token: Operator) -> Response:
    """Revoke a certificate, or all of a device; lists those that were not revoked yet."""
    ended = services.certificates.revoke(
        serial=body.serial, device=body.device, reason=body.reason, by=(token.name, token.role)
    )
    return items(ended)


@router.get("/certificates/crl")
@answers.other(PEM)
def crl(services: ServicesOf, _token: Viewer) -> Response:
    """The revocation lists as they are now (PEM, RFC 5280), for a broker of your own.

    One of each authority that is trusted.
    """
    return Response(services.certificates.revocations(), media_type=PEM)


@router.get("/certificates/authority")
@answers.other(PEM)
def authority(services: ServicesOf, _token: Viewer) -> Response:
    """Certificates of the fleet's authorities that are trusted (PEM), which devices pin."""
    return Response(services.certificates.trusted(), media_type=PEM)
