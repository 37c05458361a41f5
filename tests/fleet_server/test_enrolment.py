"""Enrolment: who gets a certificate, who does not, and what is written down of it."""

import threading
from typing import Any

import msgspec
import pytest
from cryptography import x509
from fastapi.testclient import TestClient

from edge_core.errors import InvalidConfiguration
from edge_core.messages.enrolment import CLOCK_SKEW_MS, Enrolled
from fleet_server.app import create_app
from fleet_server.services.certificates import MOST_IN_HOUR
from fleet_server.services.enrol_tokens import DAY_MS
from fleet_server.services.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
)
from fleet_server.services.suite import Services
from fleet_server.storage.certificates import Ended
from tests.simulators.enrolling import Applicant, csr, new_key, public
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")
BY = ("olga", "operator")
LIFE_MS = 30 * DAY_MS


@pytest.fixture
def services(fleet: SpokenFleet) -> Services:
    return fleet.services


def token(services: Services, devices: str = "watch-01", **changes: Any) -> str:
    options: dict[str, Any] = {"uses": 1, "reenrol": False, "expires_ms": None, "by": BY}
    return services.enrol_tokens.create(devices, **options | changes)


def enrolled(services: Services, device: str = "watch-01") -> tuple[Applicant, Enrolled]:
    applicant = Applicant(device)
    return applicant, services.enrolment.enrol(applicant.enrolment(token(services, device)))


def actions(fleet: SpokenFleet) -> list[tuple[str, str, str]]:
    entries = fleet.services.audit_log.entries(0, 1000)
    return [(entry.actor, entry.action, entry.subject) for entry in entries]


def test_a_token_gives_a_short_certificate_for_the_device_s_own_key(
    fleet: SpokenFleet, services: Services
) -> None:
    applicant, got = enrolled(services)
    certificate = x509.load_pem_x509_certificate(got.certificate.encode())
    authority = x509.load_pem_x509_certificate(got.chain.encode())
    certificate.verify_directly_issued_by(authority)
    assert certificate.public_key() == applicant.key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=watch-01"
    found = certificate.extensions
    assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = found.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        found.get_extension_for_class(x509.SubjectAlternativeName)
    assert got.not_after_ms == fleet.clock() + LIFE_MS
    assert actions(fleet) == [
        ("olga", "enrol_token.create", "watch-01"),
        ("watch-01", "certificate.issue", "watch-01"),
    ]


def test_a_lost_answer_is_given_again_and_costs_no_use(services: Services) -> None:
    secret, applicant = token(services), Applicant("watch-01")
    first = services.enrolment.enrol(applicant.enrolment(secret))
    assert services.enrolment.enrol(applicant.enrolment(secret)) == first
    (row,) = services.enrol_tokens.every()
    assert (row.uses_left, row.state) == (0, "spent")


def test_a_stolen_token_that_was_used_enrols_nobody_and_raises_an_alert(
    fleet: SpokenFleet, services: Services
) -> None:
    secret = token(services)
    services.enrolment.enrol(Applicant("watch-01").enrolment(secret))
    for _ in range(3):
        with pytest.raises(NotAuthenticated, match="used up"):
            services.enrolment.enrol(Applicant("watch-01").enrolment(secret))
    (alert,) = fleet.services.overview.alerts(10)
    assert (alert.kind, alert.closed_ms) == ("enrolment", None)
    assert [action for _, action, _ in actions(fleet)].count("enrolment.refuse") == 1
    services.enrol_tokens.revoke(services.enrol_tokens.every()[0].token, BY)
    (alert,) = fleet.services.overview.alerts(10)
    assert alert.closed_ms is not None


def test_a_token_ends_by_time_and_by_an_operator(fleet: SpokenFleet, services: Services) -> None:
    short, other = token(services, expires_ms=fleet.clock() + 1000), token(services, "watch-02")
    (second,) = [row.token for row in services.enrol_tokens.every() if row.devices == "watch-02"]
    fleet.clock.now += 1000
    with pytest.raises(NotAuthenticated, match="expired"):
        services.enrolment.enrol(Applicant("watch-01").enrolment(short))
    services.enrol_tokens.revoke(second, BY)
    with pytest.raises(NotAuthenticated, match="revoked"):
        services.enrolment.enrol(Applicant("watch-02").enrolment(other))
    with pytest.raises(NotAuthenticated, match="not known"):
        services.enrolment.enrol(Applicant("watch-01").enrolment("enrol_x"))
    with pytest.raises(NotFound):
        services.enrol_tokens.revoke("nothing", BY)


def test_two_devices_at_once_on_a_token_for_one(services: Services) -> None:
    secret = token(services, "watch-*")
    begin, outcomes = threading.Barrier(2), []

    def ask(name: str) -> None:
        request = Applicant(name).enrolment(secret)
        begin.wait()
        try:
            outcomes.append(services.enrolment.enrol(request).device)
        except NotAuthenticated:
            outcomes.append("refused")

    threads = [threading.Thread(target=ask, args=(f"watch-{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", *(c.device for c in services.certificates.page(10))]


def test_a_batch_enrols_so_many_of_a_pattern_and_no_others(services: Services) -> None:
    secret = token(services, "watch-*", uses=2)
    with pytest.raises(NotAllowed):
        services.enrolment.enrol(Applicant("door-1").enrolment(secret))
    for name in ("watch-1", "watch-2"):
        services.enrolment.enrol(Applicant(name).enrolment(secret))
    with pytest.raises(NotAuthenticated, match="used up"):
        services.enrolment.enrol(Applicant("watch-3").enrolment(secret))


def test_tokens_that_make_no_sense(services: Services) -> None:
    late = 1_700_000_000_000 + 400 * DAY_MS
    for changes in (
        {"devices": "watch/1"},
        {"devices": "watch-01", "uses": 2},
        {"devices": "watch-*", "reenrol": True},
        {"uses": 0},
        {"expires_ms": 1},
        {"expires_ms": late},
    ):
        with pytest.raises(InvalidRequest):
            token(services, **changes)


def test_a_request_that_is_refused_costs_no_use(services: Services) -> None:
    applicant, secret = Applicant("watch-01"), token(services)
    request = csr(applicant.key, "watch-02")
    with pytest.raises(InvalidRequest, match="CN=watch-01"):
        services.enrolment.enrol(applicant.enrolment(secret, request))
    assert services.enrol_tokens.every()[0].uses_left == 1


def test_a_name_cannot_be_taken_by_another_key(fleet: SpokenFleet, services: Services) -> None:
    first, before = enrolled(services)
    other, secret = Applicant("watch-01"), token(services)
    with pytest.raises(Conflict, match="--reenrol"):
        services.enrolment.enrol(other.enrolment(secret))
    assert services.enrolment.enrol(first.enrolment(secret)).device == "watch-01"  # its own key may
    allowed = token(services, reenrol=True)
    services.certificates.changed.clear()
    after = services.enrolment.enrol(other.enrolment(allowed))
    assert services.certificates.changed.is_set()
    states = {c.serial: c.state for c in services.certificates.page(10)}
    assert states.pop(after.serial) == "valid"
    assert set(states.values()) == {"revoked"}
    assert before.serial in {entry.serial for entry in services.certificates.revoked()}
    with pytest.raises(Conflict, match="revoked"):
        services.enrolment.enrol(first.enrolment(token(services, reenrol=True)))
    fleet.clock.now += LIFE_MS * 2  # a name stays taken, however long its device was away
    with pytest.raises(Conflict, match="--reenrol"):
        services.enrolment.enrol(Applicant("watch-01").enrolment(token(services)))


def test_one_key_has_one_name(services: Services) -> None:
    first, _ = enrolled(services)
    second = Applicant("watch-02")
    second.key = first.key
    with pytest.raises(Conflict, match="another device"):
        services.enrolment.enrol(second.enrolment(token(services, "watch-02")))


def test_a_certificate_is_renewed_by_its_own_key(fleet: SpokenFleet, services: Services) -> None:
    applicant, got = enrolled(services)
    fresh = new_key()
    with pytest.raises(Conflict, match="too young"):
        services.enrolment.renew(applicant.renewal(got, fleet.clock(), key=fresh))
    fleet.clock.now += LIFE_MS // 2
    request = applicant.renewal(got, fleet.clock(), key=fresh)
    after = services.enrolment.renew(request)
    assert after.serial != got.serial
    assert after.not_after_ms == fleet.clock() + LIFE_MS
    assert services.enrolment.renew(request) == after  # the answer was lost
    stranger = applicant.renewal(got, fleet.clock(), key=new_key(), signer=new_key())
    with pytest.raises(NotAuthenticated, match="not signed"):
        services.enrolment.renew(stranger)
    assert actions(fleet)[-1] == ("watch-01", "certificate.renew", "watch-01")


def test_a_renewal_is_about_now(fleet: SpokenFleet, services: Services) -> None:
    applicant, got = enrolled(services)
    fleet.clock.now += LIFE_MS // 2
    for skew in (-CLOCK_SKEW_MS - 1, CLOCK_SKEW_MS + 1):
        with pytest.raises(NotAuthenticated, match="clock"):
            services.enrolment.renew(applicant.renewal(got, fleet.clock() + skew, key=new_key()))


def test_what_has_ended_is_not_renewed(fleet: SpokenFleet, services: Services) -> None:
    applicant, got = enrolled(services)
    other, lost = enrolled(services, "watch-02")
    fleet.clock.now += LIFE_MS // 2
    services.certificates.revoke(serial=None, device="watch-02", reason="stolen", by=BY)
    with pytest.raises(NotAuthenticated, match="revoked"):
        services.enrolment.renew(other.renewal(lost, fleet.clock(), key=new_key()))
    fleet.clock.now += LIFE_MS
    with pytest.raises(NotAuthenticated, match="expired"):
        services.enrolment.renew(applicant.renewal(got, fleet.clock(), key=new_key()))
    unknown = msgspec.structs.replace(got, serial="ab")
    with pytest.raises(NotAuthenticated, match="no such"):
        services.enrolment.renew(applicant.renewal(unknown, fleet.clock(), key=new_key()))


def test_a_key_in_hardware_has_to_vouch_for_every_renewal(
    fleet: SpokenFleet, services: Services
) -> None:
    applicant = Applicant("watch-01", hardware=True)
    got = services.enrolment.enrol(applicant.enrolment(token(services)))
    assert services.certificates.page(1)[0].hardware
    fleet.clock.now += LIFE_MS // 2
    copied = applicant.renewal(got, fleet.clock(), key=new_key(), signer=applicant.key)
    with pytest.raises(NotAuthenticated, match="not signed"):  # who stole the file has not that key
        services.enrolment.renew(copied)
    after = services.enrolment.renew(applicant.renewal(got, fleet.clock(), key=new_key()))
    fleet.clock.now += LIFE_MS // 2
    services.enrolment.renew(applicant.renewal(after, fleet.clock(), key=new_key()))
    forged = applicant.enrolment(token(services))
    assert forged.holder is not None
    forged = msgspec.structs.replace(
        forged, holder=msgspec.structs.replace(forged.holder, key=public(new_key()))
    )
    with pytest.raises(InvalidRequest, match="has not signed"):
        services.enrolment.enrol(forged)


def test_a_device_cannot_fill_the_table(fleet: SpokenFleet, services: Services) -> None:
    applicant, got = enrolled(services)
    fleet.clock.now += LIFE_MS // 2
    for _ in range(MOST_IN_HOUR):
        services.enrolment.renew(applicant.renewal(got, fleet.clock(), key=new_key()))
    with pytest.raises(Conflict, match="within an hour"):
        services.enrolment.renew(applicant.renewal(got, fleet.clock(), key=new_key()))


def test_the_list_of_revocations_names_what_is_revoked_and_still_valid(
    fleet: SpokenFleet, services: Services
) -> None:
    certificates = services.certificates
    _, kept = enrolled(services)
    _, lost = enrolled(services, "watch-02")
    assert [
        c.serial for c in certificates.revoke(serial=lost.serial, device=None, reason="x", by=BY)
    ]
    assert certificates.revoke(serial=lost.serial, device=None, reason="x", by=BY) == []
    found = x509.load_pem_x509_crl(certificates.revocations())
    assert {f"{entry.serial_number:x}" for entry in found} == {lost.serial}
    assert found.get_revoked_certificate_by_serial_number(int(kept.serial, 16)) is None
    now = fleet.clock()
    assert certificates.ended(now, now) == [Ended(device="watch-02", at_ms=now, replaced=False)]
    assert certificates.ended(now + 1, now + 1) == []
    fleet.clock.now += LIFE_MS + 1
    assert certificates.revoked() == []
    assert [entry.device for entry in certificates.ended(now + 1, fleet.clock())] == [
        "watch-01",
        "watch-02",
    ]
    with pytest.raises(NotFound):
        certificates.revoke(serial="ab", device=None, reason="", by=BY)
    with pytest.raises(InvalidRequest):
        certificates.revoke(serial=None, device=None, reason="", by=BY)


def test_no_other_authority_is_made_for_devices_that_have_one(
    fleet: SpokenFleet, services: Services
) -> None:
    services.certificates.check_authority()  # nobody is enrolled yet
    enrolled(services)
    services.certificates.check_authority()
    folder = fleet.config.ca_dir
    folder.rename(folder.with_name("away"))
    with pytest.raises(InvalidConfiguration, match="restore it from a backup"):
        services.certificates.check_authority()
    services.certificates.revoke(serial=None, device="watch-01", reason="anew", by=BY)
    services.certificates.check_authority()


@pytest.fixture
def api(fleet: SpokenFleet) -> TestClient:
    return TestClient(create_app(fleet.config, fleet.services))


def test_the_calls(fleet: SpokenFleet, api: TestClient) -> None:
    olga = {"Authorization": f"Bearer {fleet.services.tokens.create('olga', 'operator')}"}
    made = api.post("/api/v1/enrol/tokens", json={"devices": "watch-01"}, headers=olga)
    assert made.status_code == 201
    secret = made.json()["secret"]
    listed = api.get("/api/v1/enrol/tokens", headers=olga)
    assert secret not in listed.text
    applicant = Applicant("watch-01")
    body = {"token": secret, "device": "watch-01", "csr": applicant.request()}
    answer = api.post("/api/v1/enrol", json=body)
    assert answer.status_code == 201, answer.text
    got = msgspec.convert(answer.json(), Enrolled)
    fleet.clock.now += LIFE_MS // 2
    renewal = msgspec.to_builtins(applicant.renewal(got, fleet.clock(), key=new_key()))
    assert api.post("/api/v1/enrol/renew", json=renewal).status_code == 201
    rows = api.get("/api/v1/certificates?limit=1", headers=olga).json()
    assert len(rows["items"]) == 1
    rest = api.get(f"/api/v1/certificates?cursor={rows['next']}", headers=olga).json()
    assert [row["serial"] for row in rest["items"]] == [got.serial]
    done = api.post(
        "/api/v1/certificates/revoke", json={"device": "watch-01", "reason": "lost"}, headers=olga
    )
    assert {row["state"] for row in done.json()["items"]} == {"revoked"}
    assert b"BEGIN X509 CRL" in api.get("/api/v1/certificates/crl", headers=olga).content
    authority = api.get("/api/v1/certificates/authority", headers=olga).text
    assert authority == got.chain
    assert api.delete(f"/api/v1/enrol/tokens/{secret[:12]}", headers=olga).status_code == 404
    name = listed.json()["items"][0]["token"]
    assert api.delete(f"/api/v1/enrol/tokens/{name}", headers=olga).status_code == 204


def test_only_operators_let_devices_in(fleet: SpokenFleet, api: TestClient) -> None:
    token_body, revoke = {"devices": "*"}, {"device": "watch-01"}
    for role in ("viewer", "ci", "approver"):
        other = {"Authorization": f"Bearer {fleet.services.tokens.create('x', role)}"}
        tried = [
            api.post("/api/v1/enrol/tokens", json=token_body, headers=other),
            api.get("/api/v1/enrol/tokens", headers=other),
            api.post("/api/v1/certificates/revoke", json=revoke, headers=other),
        ]
        assert [answer.status_code for answer in tried] == [403, 403, 403]
    assert api.post("/api/v1/enrol/tokens", json=token_body).status_code == 401


def test_sizes_are_limited_and_strangers_cost_nothing(api: TestClient) -> None:
    tried: list[tuple[dict[str, Any], int]] = [
        ({"csr": "x" * 10_000_000}, 413),
        ({"csr": "x" * 9000}, 422),
        ({"csr": "\x00"}, 401),
        ({"device": "x" * 65}, 422),
        ({"device": "a/../b"}, 401),
        ({"token": "x" * 257}, 422),
        ({"holder": {"key": "x", "signature": "x" * 600}}, 422),
    ]
    for body, status in tried:
        whole = {"token": "enrol_x", "device": "watch-01", "csr": "x"} | body
        assert api.post("/api/v1/enrol", json=whole).status_code == status, list(body)


def test_who_guesses_tokens_has_to_wait(fleet: SpokenFleet, api: TestClient) -> None:
    guess = {"token": "enrol_x", "device": "watch-01", "csr": "x"}
    most = fleet.config.requests.refused_per_minute
    for number in range(most):  # another API token each time hides nobody
        headers = {"Authorization": f"Bearer {number}"}
        assert api.post("/api/v1/enrol", json=guess, headers=headers).status_code == 401
    last = api.post("/api/v1/enrol", json=guess)
    assert (last.status_code, "retry-after" in last.headers) == (429, True)
