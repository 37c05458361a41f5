"""Signatures as others verify them, pauses, and addresses that are not called."""

import base64

import pytest

from fleet_server.domain import webhook


def test_the_signature_is_the_one_of_the_specification() -> None:
    """Source: the example of the Standard Webhooks libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    found = webhook.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_32_bytes_that_nobody_has_to_escape() -> None:
    text = webhook.secret_text(bytes(range(32)))
    assert text.startswith("whsec_")
    assert base64.b64decode(text.removeprefix("whsec_")) == bytes(range(32))


def test_pauses_grow_to_an_hour_and_are_not_the_same_for_all() -> None:
    pauses = [webhook.next_ms(attempts, 0.5) for attempts in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[0] == webhook.FIRST_MS
    assert pauses[-1] == webhook.LONGEST_MS
    assert webhook.next_ms(3, 0.0) < webhook.next_ms(3, 1.0)


@pytest.mark.parametrize(
    "url",
    ["", "pager", "ftp://a/b", "http://", "http://[::1", "http://a:0/", "http://me:pw@a/"],
)
def test_what_is_no_address_is_said_to_be_none(url: str) -> None:
    assert webhook.problem_of_url(url)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "100.64.0.1"]
)
def test_inner_addresses_are_called_only_where_that_is_allowed(address: str) -> None:
    assert "private" in webhook.problem_of_host(address, private=False)
    assert not webhook.problem_of_host(address, private=True)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1%eth0", "0.0.0.0", "224.0.0.1", "pager"]
)
def test_some_addresses_are_never_called(address: str) -> None:
    assert webhook.problem_of_host(address, private=True)


def test_what_pages() -> None:
    assert webhook.pages("retraining", {"severity": "page"})
    assert webhook.pages("incident", {"opened": True})
    assert not webhook.pages("incident", {"note": "x"})
    assert webhook.wants(["page"], "incident", {"opened": True})
    assert webhook.wants(["drift"], "drift", {})
    assert not webhook.wants(["page"], "device", {})
