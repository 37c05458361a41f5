"""Which requests for certificates are signed, and whom a token lets in."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fleet_server.domain.enrolling import checked_request, covers, name_for
from tests.simulators.enrolling import csr, new_key


def bad_requests() -> dict[str, str]:
    own = new_key()
    names = x509.SubjectAlternativeName([x509.DNSName("fleet.example")])
    whole = csr(own, "watch-01")
    forged = csr(new_key(), "watch-01").splitlines()
    return {
        "to be CN=watch-01": csr(own, "watch-02"),
        "and nothing else": csr(own, "watch-01", more="Acme"),
        "asks for extensions": csr(own, "watch-01", extension=names),
        "it may ask for none": csr(
            own, "watch-01", extension=x509.BasicConstraints(ca=True, path_length=None)
        ),
        "P-256": csr(ed25519.Ed25519PrivateKey.generate(), "watch-01"),
        "P-384": csr(ec.generate_private_key(ec.SECP256K1()), "watch-01"),
        "no request": whole[:200],
        "PKCS": "\n".join([*whole.splitlines()[:3], *forged[3:]]),
    }


BAD = bad_requests()


@pytest.mark.parametrize("said", BAD)
def test_what_is_asked_beyond_a_key_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=said if said != "PKCS" else "PKCS|signed"):
        checked_request(BAD[said], "watch-01")


def test_a_request_for_a_key_alone_is_taken() -> None:
    key = new_key()
    assert checked_request(csr(key, "watch-01"), "watch-01").key == key.public_key()


def test_patterns() -> None:
    assert covers("watch-01", "watch-01")
    assert covers("watch-*", "watch-01")
    assert covers("*", "watch-01")
    assert not covers("watch-01", "watch-011")
    assert not covers("watch.01", "watch-01")  # a point is a point
    assert not covers("*", "@server")
    assert not covers("*", "a/b")


def test_whose_a_name_is() -> None:
    assert name_for("a", []) == "free"
    assert name_for("a", [("a", False)]) == "same key"
    assert name_for("b", [("a", False)]) == "another key"
    assert name_for("b", [("a", True)]) == "another key"
    assert name_for("a", [("a", False), ("a", True)]) == "key was revoked"
