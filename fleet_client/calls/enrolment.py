"""Enrolment: tokens that let devices in, and the certificates that they get."""

from fleet_client.transport import Calls, Json, part


class EnrolmentCalls(Calls):
    """Enrolment: tokens that let devices in, and the certificates that they get."""

    def create_enrol_token(
        self, devices: str, *, uses: int = 1, reenrol: bool = False, expires_ms: int | None = None
    ) -> str:
        """Make an enrolment token and return its secret, which nobody is shown again.

        It is asked for once only: where no answer comes, look at :meth:`enrol_tokens`.
        """
        body = {"devices": devices, "uses": uses, "reenrol": reenrol, "expires_ms": expires_ms}
        return str(self._post_once("enrol/tokens", body)["secret"])

    def enrol_tokens(self) -> list[Json]:
        """List the enrolment tokens, oldest first."""
        return self._items("enrol/tokens")

    def revoke_enrol_token(self, token: str) -> None:
        """End an enrolment token, named as the list names it."""
        self._delete(f"enrol/tokens/{part(token)}")

    def certificates(self, device: str | None = None, limit: int = 1000) -> list[Json]:
        """List certificates of devices, newest first."""
        query = {} if device is None else {"device": device}
        return self._first("certificates", limit, **query)

    def revoke_certificates(
        self, *, serial: str | None = None, device: str | None = None, reason: str = ""
    ) -> list[Json]:
        """Revoke a certificate, or all of a device; returns those that were not revoked yet."""
        body = {"serial": serial, "device": device, "reason": reason}
        items: list[Json] = self._post("certificates/revoke", body)["items"]
        return items

    def crl(self) -> bytes:
        """The revocation list as it is now (PEM)."""
        return self._bytes("certificates/crl")

    def authority(self) -> bytes:
        """The certificate of the fleet's authority (PEM), which devices pin."""
        return self._bytes("certificates/authority")
