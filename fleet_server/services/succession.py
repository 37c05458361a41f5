"""One certificate authority follows another: prepared, switched to, and the one before retired."""

import msgspec
import sqlalchemy as sa

from fleet_server.authority import ca_folder, device_ca
from fleet_server.authority.ca_folder import Authorities
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.domain import succession as rules
from fleet_server.domain.succession import Newest, Phase, Step
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict
from fleet_server.services.tokens import Person
from fleet_server.storage import audit, certificates
from fleet_server.storage.database import Database


class AuthorityView(msgspec.Struct, frozen=True, kw_only=True):
    """One authority that is trusted."""

    state: str
    """``signs``, ``next`` or ``retiring``."""
    fingerprint: str
    """sha256 of its certificate."""
    not_after_ms: int
    signed: int
    """Valid certificates of devices that it has signed."""
    has_key: bool


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a succession stands."""

    phase: Phase
    authorities: list[AuthorityView]
    devices: int
    """With a valid certificate."""
    unaware: list[str]
    """Devices that have not learnt of the successor."""
    dependent: list[str]
    """Devices whose newest certificate is by the authority that retires."""


class Succession:
    """The three steps, each of which may be given again."""

    def __init__(self, database: Database, clock: Clock, authority: DeviceCa) -> None:
        self._database = database
        self._clock = clock
        self._authority = authority

    def standing(self) -> Standing:
        """Where it stands.

        Raises:
            SerinusError: the authority's files or the database cannot be used.
        """
        with self._database.read() as connection:
            return self._standing(connection)

    def step(self, step: Step, by: Person, *, force: bool = False) -> Standing:
        """Prepare a successor, switch to it, or retire the authority before.

        What was begun and cut off is brought to its end.

        Args:
            step: which one.
            by: who asks.
            force: go on, though devices are left behind by it.

        Raises:
            Conflict: it is not its turn, or devices would be left behind.
            SerinusError: the authority's files or the database cannot be used.
        """
        with self._database.write() as connection:
            found = self._standing(connection)
            if refusal := rules.OUT_OF_ORDER.get((step, found.phase)):
                raise Conflict(refusal)
            if found.phase != rules.DONE[step]:
                if not force:
                    _check(step, found)
                # Noted before it is done: what was done is in the log, whatever cuts this off.
                signer = self._authority.authorities(self._clock()).signer
                detail = {"signs": ca_folder.fingerprint(signer.certificate), "force": force}
                audit.note(connection, self._clock(), by, f"authority.{step}", "device ca", detail)
        match step:
            case "prepare":
                self._authority.prepare(self._clock)
            case "switch":
                self._authority.switch(self._clock())
            case "retire":
                self._authority.retire(self._clock())
        return self.standing()

    def _standing(self, connection: sa.Connection) -> Standing:
        now = self._clock()
        found = self._authority.authorities(now)
        valid = [
            Newest(device=device, issued_ms=issued_ms, issuer=device_ca.issuer_of(pem))
            for device, issued_ms, pem in certificates.valid(connection, now)
        ]
        newest = rules.newest(valid)
        comer = found.successor or found.signer
        retiring = None if found.retiring is None else found.retiring.key_id
        phase = _phase(found)
        return Standing(
            phase=phase,
            authorities=[
                AuthorityView(
                    state=one.state,
                    fingerprint=ca_folder.fingerprint(one.certificate),
                    not_after_ms=round(one.certificate.not_valid_after_utc.timestamp() * 1000),
                    signed=sum(entry.issuer == one.key_id for entry in valid),
                    has_key=one.key is not None,
                )
                for one in found.every
            ],
            devices=len(newest),
            unaware=[
                one.device
                for one in newest
                if phase != "alone" and not rules.has_learnt(one, comer.made_ms)
            ],
            dependent=[one.device for one in newest if one.issuer == retiring],
        )


def _phase(found: Authorities) -> Phase:
    if found.successor is not None:
        return "prepared"
    return "alone" if found.retiring is None else "switched"


def _check(step: Step, found: Standing) -> None:
    """Refuse what leaves devices behind; raise :class:`Conflict`."""
    if step == "switch" and found.unaware:
        raise Conflict(
            f"{rules.named(found.unaware)} of {found.devices} devices have not learnt of the "
            "successor and would be cut off: wait until they have renewed their certificates, or "
            "name --force and enrol them again"
        )
    if step == "retire" and found.dependent:
        raise Conflict(
            f"{rules.named(found.dependent)} of {found.devices} devices still have a certificate "
            "of the authority that retires: wait until they have renewed it, or name --force, and "
            "they are off the broker until they have"
        )
