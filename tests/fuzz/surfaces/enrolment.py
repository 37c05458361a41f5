"""What strangers may send to be enrolled: bodies of both calls, requests for certificates, keys."""

import base64
import textwrap
from datetime import timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.testclient import TestClient

from edge_core.messages.enrolment import Enrolled
from fleet_server.app import create_app
from fleet_server.config import EnrolmentConfig, RequestsConfig, ServerConfig
from fleet_server.domain import enrolling
from fleet_server.services.suite import Services
from tests.fuzz.forms import BYTES, JSON
from tests.fuzz.mutator import Case
from tests.fuzz.surface import Surface
from tests.simulators.enrolling import Applicant, new_key, public

NOW_MS = 1_700_000_000_000
DEVICE = "fuzz-1"
MANY = 1_000_000_000
HOUR_MS = 3_600_000


class _Calls(Surface):
    """One call of a real application with a real database; a stranger never makes it stumble."""

    forms = (JSON,)
    short = 160
    path = ""

    def __init__(self, folder: Path) -> None:
        self._now = NOW_MS
        config = ServerConfig(
            data_dir=str(folder),
            requests=RequestsConfig(per_second=MANY, refused_per_minute=MANY),
            enrolment=EnrolmentConfig(certificate_days=timedelta(hours=2) / timedelta(days=1)),
        )
        self._services = Services.open(config, lambda: self._now)
        self._client = TestClient(create_app(config, self._services))
        self._enrolment = self._services.enrolment
        self._token = self._services.enrol_tokens.create(
            "fuzz-*", uses=100, reenrol=False, expires_ms=None, by=("olga", "operator")
        )
        self._before = 0
        self.seeds = self.good()
        self._before = self._made()

    def good(self) -> list[Case]:
        """Bodies that are taken."""
        raise NotImplementedError

    def _made(self) -> int:
        return len(self._services.certificates.page(1000))

    def feed(self, case: Case) -> int:
        answer = self._client.post(
            self.path, content=case[0], headers={"Content-Type": "application/json"}
        )
        assert answer.status_code < 500, answer.text
        assert self._made() == self._before or answer.status_code == 201
        if answer.status_code != 201:
            assert answer.headers["content-type"] == "application/problem+json"
            return 1
        made = msgspec.json.decode(answer.content, type=Enrolled)
        names = x509.load_pem_x509_certificate(made.certificate.encode()).subject
        assert names.rfc4514_string() == f"CN={made.device}"
        assert made.device.startswith("fuzz-"), "the token is for others"
        self._before = self._made()
        return 0

    def check(self) -> None:
        for case in self.seeds:
            assert self.feed(case) == 0

    def close(self) -> None:
        self._client.close()
        self._services.database.close()


class Enrolments(_Calls):
    """``POST /api/v1/enrol``, also with a key in hardware that vouches."""

    name = "enrolments"
    path = "/api/v1/enrol"

    def good(self) -> list[Case]:
        found: list[Case] = []
        for name, hardware in ((DEVICE, False), ("fuzz-2", True)):
            request = Applicant(name, hardware=hardware).enrolment(self._token)
            self._enrolment.enrol(request)  # asked again, it is answered the same
            found.append((msgspec.json.encode(request),))
        return found


class RenewalCalls(_Calls):
    """``POST /api/v1/enrol/renew``."""

    name = "renewals"
    path = "/api/v1/enrol/renew"

    def good(self) -> list[Case]:
        applicant = Applicant(DEVICE)
        present = self._enrolment.enrol(applicant.enrolment(self._token))
        self._now += HOUR_MS
        request = applicant.renewal(present, self._now, key=new_key())
        self._enrolment.renew(request)
        return [(msgspec.json.encode(request),)]


class CertificateRequests(Surface):
    """A request for a certificate (DER), which the server puts no trust in."""

    name = "certificate-requests"
    forms = (BYTES,)
    short = 400

    def __init__(self, folder: Path) -> None:
        request = x509.load_pem_x509_csr(Applicant(DEVICE).request().encode())
        self.seeds = [(request.public_bytes(Encoding.DER),)]

    def feed(self, case: Case) -> int:
        try:
            found = enrolling.checked_request(_pem("CERTIFICATE REQUEST", case[0]), DEVICE)
        except ValueError as error:
            return _refused(error)
        assert enrolling.fingerprint(found.key)
        return 0

    def check(self) -> None:
        assert not any(self.feed(case) for case in self.seeds)


class HolderKeys(Surface):
    """A public key (DER) that is to vouch for others."""

    name = "holder-keys"
    forms = (BYTES,)
    short = 400

    def __init__(self, folder: Path) -> None:
        lines = public(new_key()).splitlines()[1:-1]
        self.seeds = [(base64.b64decode("".join(lines)),)]

    def feed(self, case: Case) -> int:
        try:
            key = enrolling.checked_key(_pem("PUBLIC KEY", case[0]))
        except ValueError as error:
            return _refused(error)
        assert enrolling.is_signed(key, case[0], b"statement") is False
        return 0

    def check(self) -> None:
        assert not any(self.feed(case) for case in self.seeds)


def _refused(error: ValueError) -> int:
    assert str(error).isprintable()
    return 1


def _pem(label: str, der: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
