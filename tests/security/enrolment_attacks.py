"""Attacks on enrolment: tokens, names, requests for certificates, renewals."""

import base64
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from edge_core.messages.enrolment import CLOCK_SKEW_MS, MAX_CSR_BYTES, EnrolRequest, RenewRequest
from fleet_client.transport import Refused
from fleet_server.authority.device_ca import OWNER
from fleet_server.config import RequestsConfig
from fleet_server.services.clock import wall_clock
from tests.security.fleet import Fleet, Stranger
from tests.security.scenario import Scenario, Tries, expect
from tests.simulators.enrolled_device import NAME
from tests.simulators.enrolling import Applicant, csr, new_key

ENROL, RENEW = "/api/v1/enrol", "/api/v1/enrol/renew"
CREATED = 201
LARGE = 10_000_000


def _asked(
    fleet: Fleet, what: "EnrolRequest | RenewRequest", client: httpx.Client | None = None
) -> httpx.Response:
    path = ENROL if isinstance(what, EnrolRequest) else RENEW
    return (client or fleet.visitor()).post(path, json=msgspec.to_builtins(what))


def _refuses(
    fleet: Fleet, what: "EnrolRequest | RenewRequest", *statuses: int, reason: str
) -> None:
    answer = _asked(fleet, what)
    expect(answer.status_code in statuses, f"{answer.status_code}: {answer.text[:300]}")
    expect(reason in answer.text, f"it does not say {reason!r}: {answer.text[:300]}")


def _tokens(fleet: Fleet, tries: Tries) -> None:
    client = fleet.server.client
    applicant = Applicant("token-1")
    short = client.create_enrol_token("token-1", expires_ms=wall_clock() + 300)
    spent = client.create_enrol_token("token-1")
    ended = client.create_enrol_token("token-2")
    for row in client.enrol_tokens():
        if row["devices"] == "token-2":
            client.revoke_enrol_token(row["token"])
    _asked(fleet, applicant.enrolment(spent)).raise_for_status()
    time.sleep(0.3)
    for what, device, token, reason in (
        ("a token that nobody made", "token-3", "enrol_x", "not known"),
        ("an empty token", "token-3", "", "token"),
        ("an API token", "token-3", _operator(fleet), "not known"),
        ("a token that has expired", "token-3", short, "expired"),
        ("a token that was revoked", "token-2", ended, "revoked"),
        ("a token that was used", "token-1", spent, "used up"),
    ):
        with tries(what):
            request = Applicant(device).enrolment(token)
            _refuses(fleet, request, 401, 422, reason=reason)
    with tries("a used token, once more by the same key: no second certificate"):
        before = client.certificates("token-1")
        _asked(fleet, applicant.enrolment(spent))
        expect(client.certificates("token-1") == before, "there is another certificate")


def _operator(fleet: Fleet) -> str:
    return (fleet.server.data / "operator.token").read_text().strip()


def _names(fleet: Fleet, tries: Tries) -> None:
    client = fleet.server.client
    batch = client.create_enrol_token("batch-*", uses=50)
    for name in ("door-1", "xbatch-1", OWNER, "batch-1/../x", "batch-1\nx", "batch-#", "batch-+"):
        with tries(f"the name {name!r} with a token for batch-*"):
            applicant = Applicant(name)
            _refuses(fleet, applicant.enrolment(batch), 403, 422, reason="not for a device")
    with tries("another name with a token for one"):
        one = client.create_enrol_token("one-1")
        _refuses(fleet, Applicant("one-2").enrolment(one), 403, reason="not for a device")
    with tries("the name of a device that is enrolled"):
        again = client.create_enrol_token(NAME)
        _refuses(fleet, Applicant(NAME).enrolment(again), 409, reason="--reenrol")
    with tries("a second name for one key"):
        taken = fleet.enrol("batch-7")
        other = Applicant("batch-8")
        other.key = taken.applicant.key
        _refuses(fleet, other.enrolment(batch), 409, reason="another device")
    for devices in (OWNER, "a/b", "#", "+"):
        with tries(f"a token for {devices}, by an operator"):
            try:
                client.create_enrol_token(devices)
            except Refused as refused:
                expect(refused.status == 422, str(refused))
            else:
                expect(False, "it is made")


def _requests(fleet: Fleet, tries: Tries) -> None:
    token = fleet.server.client.create_enrol_token("csr-1")
    own = Applicant("csr-1")
    names = x509.SubjectAlternativeName([x509.DNSName("fleet.example")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    authority = x509.BasicConstraints(ca=True, path_length=None)
    wanted: dict[str, tuple[Callable[[], str], str]] = {
        "to be an authority": (lambda: own.request(extension=authority), "extensions"),
        "names of servers": (lambda: own.request(extension=names), "extensions"),
        "to be a server": (lambda: own.request(extension=usage), "extensions"),
        "another subject": (lambda: own.request(name="csr-2"), "CN=csr-1"),
        "the server's name": (lambda: own.request(name=OWNER), "CN=csr-1"),
        "a second name": (lambda: own.request(more="fleet"), "CN=csr-1"),
        "no name": (lambda: _unnamed(own.key), "CN=csr-1"),
        "an attribute": (lambda: _challenged(own.key), "extensions"),
        "an RSA key": (
            lambda: _plain(rsa.generate_private_key(65537, 2048), hashes.SHA256()), "P-256"
        ),
        "a short RSA key": (
            lambda: _plain(rsa.generate_private_key(65537, 1024), hashes.SHA256()), "P-256"
        ),
        "a weak curve": (
            lambda: _plain(ec.generate_private_key(ec.SECP224R1()), hashes.SHA256()), "P-256"
        ),
        "another kind of key": (
            lambda: _plain(ed25519.Ed25519PrivateKey.generate(), None), "P-256"
        ),
        "a key that it has not": (lambda: _foreign(own.key), "not signed by the key"),
        "another version": (lambda: _newer(own.key), "no request"),
        "nothing": (lambda: "-----BEGIN CERTIFICATE REQUEST-----\n", "no request"),
    }  # fmt: skip
    for what, (made, reason) in wanted.items():
        with tries(f"a request for {what}"):
            _refuses(fleet, own.enrolment(token, made()), 422, reason=reason)
    with tries("that any of it took the token's use"):
        rows = {row["devices"]: row for row in fleet.server.client.enrol_tokens()}
        expect(rows["csr-1"]["uses_left"] == 1, "it is used up")
        expect(_asked(fleet, own.enrolment(token)).status_code == CREATED, "it enrols nobody")


def _plain(key: Any, digest: hashes.SHA256 | None) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "csr-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


def _unnamed(key: Any) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _challenged(key: Any) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "csr-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"let me in")
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _foreign(key: Any) -> str:
    """A request for somebody's key, signed by another one: the end of another request."""
    mine, theirs = (x509.load_pem_x509_csr(csr(one, "csr-1").encode()) for one in (key, new_key()))
    whole = bytearray(mine.public_bytes(Encoding.DER))
    place = whole.rindex(mine.signature)
    forged = theirs.signature[: len(mine.signature)].ljust(len(mine.signature), b"\0")
    whole[place:] = forged
    return _pem(bytes(whole))


def _newer(key: Any) -> str:
    """A request of a version that there is not."""
    der = x509.load_pem_x509_csr(csr(key, "csr-1").encode()).public_bytes(Encoding.DER)
    return _pem(der.replace(b"\x02\x01\x00", b"\x02\x01\x01", 1))


def _pem(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def _renewals(fleet: Fleet, tries: Tries) -> None:
    own, other = fleet.enrol("renewal-1"), fleet.enrol("renewal-2")
    now = wall_clock()
    with tries("a signature of another device"):
        forged = _renewal(own, now, signer=other.applicant.key)
        _refuses(fleet, forged, 401, reason="not signed")
    with tries("a signature of the key that is to be certified"):
        fresh = new_key()
        forged = own.applicant.renewal(own.enrolled, now, key=fresh, signer=fresh)
        _refuses(fleet, forged, 401, reason="not signed")
    with tries("no signature at all"):
        bare = msgspec.structs.replace(_renewal(own, now), signature="AAAA")
        _refuses(fleet, bare, 401, reason="not signed")
    heard = _renewal(own, now)
    with tries("a statement that was heard, for another key"):
        other_key = msgspec.structs.replace(heard, csr=own.applicant.request(new_key()))
        _refuses(fleet, other_key, 401, reason="not signed")
    with tries("a statement that was heard, for another time"):
        _refuses(fleet, msgspec.structs.replace(heard, at_ms=now + 1), 401, reason="not signed")
    with tries("a statement that was heard, for another certificate"):
        moved = msgspec.structs.replace(heard, serial=other.enrolled.serial)
        _refuses(fleet, moved, 422, reason=f"CN={other.name}")
    for what, at_ms in (("old", now - CLOCK_SKEW_MS - 5000), ("early", now + CLOCK_SKEW_MS + 5000)):
        with tries(f"a statement that is too {what}"):
            _refuses(fleet, _renewal(own, at_ms), 401, reason="correct the device's clock")
    with tries("a certificate that nobody made"):
        unknown = msgspec.structs.replace(own.enrolled, serial="ab")
        _refuses(fleet, own.applicant.renewal(unknown, now, key=new_key()), 401, reason="no such")
    with tries("sooner than a third of its life"):
        _refuses(fleet, heard, 409, reason="too young")
    fleet.server.client.revoke_certificates(device=own.name, reason="stolen")
    with tries("a revoked certificate"):
        _refuses(fleet, _renewal(own, wall_clock()), 401, reason="revoked")
    with tries("a statement that was heard before it was revoked"):
        _refuses(fleet, heard, 401, reason="revoked")
    with tries("the key of a revoked certificate, with a new token"):
        token = fleet.server.client.create_enrol_token(own.name)
        _refuses(fleet, own.applicant.enrolment(token), 409, reason="revoked")


def _renewal(own: Stranger, at_ms: int, *, signer: Any = None) -> RenewRequest:
    return own.applicant.renewal(own.enrolled, at_ms, key=new_key(), signer=signer)


def _sizes(fleet: Fleet, tries: Tries) -> None:
    good = {"token": "enrol_x", "device": "size-1", "csr": "x"}
    renewal = {"serial": "ab", "at_ms": 0, "csr": "x", "signature": "x"}
    for what, path, body, status in (
        ("a very large body", ENROL, good | {"csr": "x" * LARGE}, 413),
        ("a very large renewal", RENEW, renewal | {"csr": "x" * LARGE}, 413),
        ("a long request", ENROL, good | {"csr": "x" * (MAX_CSR_BYTES + 1)}, 422),
        ("a long signature", RENEW, renewal | {"signature": "x" * 600}, 422),
        ("a long token", ENROL, good | {"token": "x" * 300}, 422),
        ("a field more", ENROL, good | {"reenrol": True}, 422),
    ):  # fmt: skip
        with tries(what):
            answer = fleet.visitor().post(path, json=body)
            expect(answer.status_code == status, f"{answer.status_code}: {answer.text[:200]}")
    with tries("a body without an end"):
        answer = fleet.visitor().post(ENROL, content=(b"x" * 65_536 for _ in range(200)))
        expect(answer.status_code == 413, f"{answer.status_code}: {answer.text[:200]}")
    with tries("a body that is nested deeply"):
        answer = fleet.visitor().post(ENROL, content=b"[" * 50_000)
        expect(answer.status_code == 422, f"{answer.status_code}: {answer.text[:200]}")


def _guesses(fleet: Fleet, tries: Tries) -> None:
    most = RequestsConfig().refused_per_minute
    fleet.server.client.create_enrol_token("guess-1")
    for what, path, body in (
        ("tokens", ENROL, {"token": "enrol_x", "device": "guess-1", "csr": "x"}),
        (
            "renewals", RENEW,
            {"serial": "ab", "at_ms": 0, "csr": "x", "signature": "x"},
        ),
    ):  # fmt: skip
        with tries(f"more than {most} wrong {what} from one address"):
            guesser = fleet.visitor()
            codes = []
            for number in range(most + 1):  # another API token each time hides nobody
                headers = {"Authorization": f"Bearer {number}"}
                codes.append(guesser.post(path, json=body, headers=headers).status_code)
            expect(codes == [401] * most + [429], f"{codes[-3:]} after {len(codes)}")
            expect(fleet.visitor().get("/login").status_code == 200, "others have to wait, too")


SCENARIOS = [
    Scenario(name="enrolment_tokens", what="tokens that are wrong or have ended", run=_tokens),
    Scenario(name="enrolment_names", what="names that are not one's own", run=_names),
    Scenario(name="certificate_requests", what="requests for more than a key", run=_requests),
    Scenario(name="renewals", what="renewals that are forged or late", run=_renewals),
    Scenario(name="enrolment_sizes", what="bodies that are too large", run=_sizes),
    Scenario(name="enrolment_guesses", what="many wrong tokens", run=_guesses),
]
