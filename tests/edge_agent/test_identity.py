"""The device's key and certificate on its disk, what it takes for an answer, and when it renews."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from edge_agent.identity.authority import Authority, NotEnrolled
from edge_agent.identity.files import Certificate, IdentityFiles
from edge_agent.identity.keys import FileKey
from edge_agent.identity.renewal import LONGEST_SECONDS, due, pause
from edge_agent.identity.trust import Trust
from edge_core.errors import InvalidConfiguration, InvalidMessage, NoDisk, Unavailable
from edge_core.messages.enrolment import EnrolRequest, RenewRequest
from fleet_server.config import ServerConfig
from fleet_server.services.enrolment import Enrolment
from fleet_server.services.errors import NotAuthenticated
from fleet_server.services.suite import Services

BY = ("olga", "operator")
DAY_MS = 86_400_000


class Wire:
    """The server's own services behind the request, and a wire that a test damages."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment
        self.asked: list[EnrolRequest] = []
        self.change: Any = lambda status, body: (status, body)

    def post(self, url: str, body: bytes, *, seconds: float, most: int) -> tuple[int, bytes]:
        assert url == "https://fleet.example/api/v1/enrol"
        self.asked.append(msgspec.json.decode(body, type=EnrolRequest))
        try:
            made = self._enrolment.enrol(self.asked[-1])
        except NotAuthenticated as error:
            return 401, msgspec.json.encode({"detail": str(error)})
        found: tuple[int, bytes] = self.change(201, msgspec.json.encode(made))
        return found


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = Services.open(ServerConfig(data_dir=str(tmp_path_factory.mktemp("server"))))
    yield found
    found.database.close()


@pytest.fixture
def wire(services: Services) -> Wire:
    return Wire(services.enrolment)


def asking(
    services: Services, wire: object, files: IdentityFiles, server: str = "https://fleet.example"
) -> Authority:
    ca_file = services.certificates.authority.certificate_file
    services.certificates.trusted()
    return Authority(server, wire, Trust(files, ca_file))  # type: ignore[arg-type]


def token(services: Services, device: str) -> str:
    return services.enrol_tokens.create(device, uses=1, reenrol=False, expires_ms=None, by=BY)


def lost(_status: int, _body: bytes) -> tuple[int, bytes]:
    raise Unavailable("the connection ended")


def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(
    services: Services, wire: Wire, tmp_path: Path
) -> None:
    secret, files = token(services, "lost-1"), IdentityFiles(tmp_path)
    authority = asking(services, wire, files, "https://fleet.example/")
    wire.change = lost
    with pytest.raises(Unavailable):
        authority.enrol(files, "lost-1", secret, None)
    assert files.present() is None
    wire.change = lambda status, body: (status, body)
    after_a_restart = IdentityFiles(tmp_path)
    made = authority.enrol(after_a_restart, "lost-1", secret, None)
    assert after_a_restart.present() is not None
    assert len(services.certificates.page(10, device="lost-1")) == 1
    assert made.device == "lost-1"
    assert not (tmp_path / "identity" / "next.key").exists()


def test_a_renewal_is_for_another_key_even_where_a_power_cut_left_the_last_one(
    services: Services, wire: Wire, tmp_path: Path
) -> None:
    files = IdentityFiles(tmp_path)
    authority = asking(services, wire, files)
    authority.enrol(files, "cut-1", token(services, "cut-1"), None)
    found = files.present()
    assert found is not None
    key, present = found
    (tmp_path / "identity" / "next.key").write_bytes(key.pem)  # as before it was removed
    asked: list[RenewRequest] = []

    class Deaf:
        def post(self, url: str, body: bytes, **_: Any) -> tuple[int, bytes]:
            asked.append(msgspec.json.decode(body, type=RenewRequest))
            raise Unavailable("the connection ended")

    deaf = asking(services, Deaf(), files)
    for _ in range(2):
        with pytest.raises(Unavailable):
            deaf.renew(files, present, key, 0)
    keys = [x509.load_pem_x509_csr(request.csr.encode()).public_key() for request in asked]
    assert keys[0] == keys[1], "the key that was sent is kept"
    assert files.next_key().public_pem != present.public_pem


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_cannot_is_asked_again(
    services: Services, wire: Wire, tmp_path: Path, status: int
) -> None:
    files = IdentityFiles(tmp_path)
    authority = asking(services, wire, files)
    wire.change = lambda _status, _body: (status, b"<html>")
    with pytest.raises(Unavailable):
        authority.enrol(files, f"busy-{status}", token(services, "busy-*"), None)


def test_what_is_not_for_this_key_is_not_taken(
    services: Services, wire: Wire, tmp_path: Path
) -> None:
    other = IdentityFiles(tmp_path / "other")
    asking(services, wire, other).enrol(other, "other-1", token(services, "other-1"), None)
    foreign = msgspec.json.encode(services.enrolment.enrol(wire.asked[-1]))
    files = IdentityFiles(tmp_path)
    authority = asking(services, wire, files)
    for answer in (foreign, b"{}", b"\xff", b"[]"):
        wire.change = lambda status, _body, answer=answer: (status, answer)
        with pytest.raises((InvalidMessage, InvalidConfiguration)):
            authority.enrol(files, "mine-1", token(services, "mine-*"), None)
        assert files.present() is None
    with pytest.raises(NotEnrolled, match="not known"):
        authority.enrol(files, "mine-1", "enrol_x", None)


def test_a_certificate_comes_with_what_is_trusted_from_then_on(
    services: Services, wire: Wire, tmp_path: Path
) -> None:
    files = IdentityFiles(tmp_path)
    authority = asking(services, wire, files)
    secret = token(services, "chain-1")
    wire.change = without_chain
    with pytest.raises(InvalidMessage, match="chain"):
        authority.enrol(files, "chain-1", secret, None)
    assert (files.present(), files.learnt()) == (None, None)
    wire.change = lambda status, body: (status, body)
    authority.enrol(files, "chain-1", secret, None)
    learnt = msgspec.json.decode(files.learnt() or b"")
    assert learnt["certificates"] == services.certificates.trusted()


def without_chain(status: int, body: bytes) -> tuple[int, bytes]:
    return status, msgspec.json.encode(msgspec.json.decode(body) | {"chain": ""})


def test_a_damaged_file_is_named_with_the_fix(tmp_path: Path) -> None:
    files = IdentityFiles(tmp_path)
    assert files.present() is None
    files.next_key()
    for damage in (b"", b"garbage", FileKey.generate().pem):
        files.own.write_bytes(damage)
        with pytest.raises(InvalidConfiguration, match="enrol"):
            files.present()
    (tmp_path / "identity" / "next.key").write_bytes(b"cut")
    assert files.next_key().public_pem == files.next_key().public_pem


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("a file in its place")
    with pytest.raises((NoDisk, InvalidConfiguration), match="identity"):
        IdentityFiles(tmp_path).next_key()


def test_when_it_is_renewed_and_tried_again() -> None:
    month = Certificate(
        serial="1", device="d", not_before_ms=0, not_after_ms=30 * DAY_MS, public_pem=""
    )
    assert due(month, 0.5) == 20 * DAY_MS
    assert 18 * DAY_MS < due(month, 0.0) < due(month, 1.0) < 22 * DAY_MS
    assert pause(10 * DAY_MS / 1000, 0.5) == LONGEST_SECONDS
    assert pause(100.0, 0.5) == 5.0
    assert pause(0.1, 0.0) == 0.5
    assert pause(-5.0, 0.0) == LONGEST_SECONDS / 2
