"""The page on who is enrolled: certificates of devices, and the tokens that let devices in."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from fleet_server.console.rendering import PageRoute, Reader, ServicesOf, page
from fleet_server.domain.permissions import may

SHOWN = 200

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/certificates")
def certificates(
    token: Reader, services: ServicesOf, device: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Show certificates, the newest first, and to whom it may matter the enrolment tokens."""
    return page(
        "certificates.html",
        token=token,
        now_ms=services.overview.now_ms,
        device=device,
        standing=services.certificates.standing(),
        certificates=services.certificates.page(SHOWN, device=device or None),
        most=SHOWN,
        tokens=services.enrol_tokens.every() if may(token.role, "operate") else None,
    )
