"""Logging in with the organisation's accounts: a real provider beside a real server."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_server.app import create_app
from fleet_server.config import OidcConfig, RequestsConfig, ServerConfig, load
from fleet_server.console.rendering import SESSION_COOKIE
from fleet_server.services.accounts import Accounts, Attempt
from fleet_server.services.errors import NotAllowed, NotAuthenticated
from fleet_server.services.suite import Services
from tests.simulators.processes import free_port, wait_for

ROLES: dict[str, Any] = {"fleet-people": "operator", "guests": "viewer"}
PEOPLE = {
    "olga": {"email": "olga@fleet.example", "groups": ["guests", "fleet-people"]},
    "vera": {"email": "vera@fleet.example", "groups": "guests"},
    "nobody": {"email": "nobody@fleet.example", "groups": ["cooks"]},
    "unverified": {"email": "who@fleet.example", "email_verified": False, "groups": ["guests"]},
}
PAGE = "http://localhost:8321"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    port = free_port()
    users = [f"--user-claims={json.dumps({'sub': sub} | claims)}" for sub, claims in PEOPLE.items()]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *users]
    url = f"http://localhost:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            wait_for(lambda: answers(url), seconds=20, what="the provider")
            yield url
        finally:
            child.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration").is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "oidc.secret"
    file.write_text("secret-of-the-page\n")
    return file


def settings(issuer: str, secret: Path | None) -> OidcConfig:
    file = None if secret is None else str(secret)
    return OidcConfig(
        issuer=issuer, public_url=PAGE, name="Fleet ID", roles=ROLES, client_secret_file=file
    )


@pytest.fixture
def browser(tmp_path: Path, issuer: str, secret_file: Path) -> Iterator[TestClient]:
    config = ServerConfig(data_dir=str(tmp_path), oidc=settings(issuer, secret_file))
    services = Services.open(config)
    with TestClient(create_app(config, services), base_url=PAGE, follow_redirects=False) as found:
        yield found
    services.database.close()


def came_back(begun: httpx.Response, sub: str) -> str:
    """What the provider sends a person's browser back to, once they have logged in there."""
    answer = httpx.post(begun.headers["location"], data={"sub": sub})
    assert answer.status_code in (302, 303), answer.text
    return str(answer.headers["location"])


def log_in(browser: TestClient, sub: str) -> httpx.Response:
    begun = browser.get("/login/accounts")
    assert begun.status_code == 303
    return browser.get(came_back(begun, sub))


def test_a_person_logs_in_with_the_role_of_their_groups(browser: TestClient) -> None:
    assert "Log in with Fleet ID" in browser.get("/login").text
    answer = log_in(browser, "olga")
    assert answer.status_code == 200
    assert "olga@fleet.example is logged in as operator" in answer.text
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert browser.get("/").status_code == 200
    token = browser.app.state.services.tokens.session(browser.cookies[SESSION_COOKIE])  # type: ignore[attr-defined]
    assert (token.name, token.role) == ("olga@fleet.example", "operator")
    assert token.expires_ms is not None
    entries = browser.app.state.services.audit_log.entries(0, 10)  # type: ignore[attr-defined]
    assert [e.actor for e in entries if e.action == "logged_in"] == ["olga@fleet.example"]


def test_one_group_may_be_told_as_a_text(browser: TestClient) -> None:
    assert "logged in as viewer" in log_in(browser, "vera").text


@pytest.mark.parametrize(
    ("sub", "reason"),
    [("nobody", "in no group that has a role"), ("unverified", "has not verified the address")],
)
def test_people_without_a_role_are_told_why(browser: TestClient, sub: str, reason: str) -> None:
    answer = log_in(browser, sub)
    assert answer.status_code == 401
    assert reason in answer.text
    assert browser.get("/").status_code == 303


def test_an_answer_to_another_attempt_is_refused(browser: TestClient) -> None:
    """Somebody else's code, slipped into this browser: it would act under another's name."""
    stolen = came_back(browser.get("/login/accounts"), "vera")
    browser.get("/login/accounts")  # another attempt takes the place of the first
    answer = browser.get(stolen)
    assert answer.status_code == 401
    assert "not the answer to your log-in" in answer.text
    browser.cookies.clear()
    assert browser.get(stolen).status_code == 400


def test_a_code_counts_once_and_its_proof_is_for_this_attempt(
    issuer: str, secret_file: Path
) -> None:
    accounts = Accounts(settings(issuer, secret_file))
    address, attempt = accounts.begin()
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert attempt.verifier not in address
    back = httpx.post(address, data={"sub": "olga"}).headers["location"]
    answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    other = Attempt(state=attempt.state, nonce="another", verifier=attempt.verifier)
    with pytest.raises(NotAuthenticated, match="no valid proof"):
        accounts.finish(other, answer)
    with pytest.raises(NotAuthenticated, match="does not take the code"):
        accounts.finish(attempt, answer)


def test_who_is_denied_there_is_told_so(issuer: str) -> None:
    accounts = Accounts(settings(issuer, None))
    _, attempt = accounts.begin()
    with pytest.raises(NotAuthenticated, match="did not log you in: access_denied"):
        accounts.finish(attempt, {"state": attempt.state, "error": "access_denied"})


def test_a_provider_that_is_away_or_another_is_named(tmp_path: Path, issuer: str) -> None:
    away = Accounts(settings(f"http://localhost:{free_port()}", None))
    with pytest.raises(Unavailable, match="cannot be reached"):
        away.begin()
    config = ServerConfig(
        data_dir=str(tmp_path), oidc=settings(f"http://localhost:{free_port()}", None)
    )
    services = Services.open(config)
    with TestClient(create_app(config, services), base_url=PAGE) as browser:
        answer = browser.get("/login/accounts")
        assert answer.status_code == 503
        assert "cannot be reached" in answer.text
    services.database.close()


def test_the_most_that_any_group_may_counts(issuer: str) -> None:
    accounts = Accounts(settings(issuer, None))
    claims = {"sub": "x", "email": "x@y", "groups": ["guests", "fleet-people", 7]}
    assert accounts._person(claims).role == "operator"
    for groups in ({}, None, 5, [["guests"]]):
        with pytest.raises(NotAllowed):
            accounts._person(claims | {"groups": groups})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('issuer = "http://login.example"', "oidc.issuer is an https"),
        ('issuer = "https://login.example"', "oidc.public_url is an https"),
        (
            'issuer = "https://a.example"\npublic_url = "https://b.example"',
            "oidc.roles says which group",
        ),
        (
            'issuer = "https://a.example"\npublic_url = "https://b.example"\n'
            '[oidc.roles]\nx = "king"',
            "Invalid enum value 'king'",
        ),
    ],
)
def test_settings_that_let_nobody_or_anybody_in_are_refused(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"[oidc]\n{text}\n")
    with pytest.raises(InvalidConfiguration, match=reason):
        load(file)


def test_forms_of_other_sites_are_not_taken(browser: TestClient) -> None:
    services = browser.app.state.services  # type: ignore[attr-defined]
    secret = services.tokens.create("olga", "operator")
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = browser.post("/login", data={"token": secret}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
        assert browser.post("/logout", headers=headers).status_code == 403
    own = {"origin": PAGE}
    assert browser.post("/login", data={"token": secret}, headers=own).status_code == 303


def test_many_wrong_tokens_and_many_requests_have_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)  # however slow this machine is
    few = RequestsConfig(per_second=1, refused_per_minute=5)
    config = ServerConfig(data_dir=str(tmp_path), requests=few)
    services = Services.open(config)
    secret = services.tokens.create("olga", "operator")
    good = {"Authorization": f"Bearer {secret}"}
    app = create_app(config, services)
    with (
        TestClient(app, client=("10.0.0.1", 1)) as one,
        TestClient(app, client=("10.0.0.2", 1)) as two,
    ):
        found = [one.get("/api/v1/fleet", headers=good).status_code for _ in range(12)]
        assert found == [200] * 10 + [429] * 2
        answer = one.get("/api/v1/fleet", headers=good)
        assert answer.headers["retry-after"] == "10"
        assert answer.json()["type"] == "urn:serinus:problem:too-many-requests"
        assert one.get("/healthz").status_code == 200
        wrong = [two.post("/login", data={"token": f"guess{n}"}).status_code for n in range(7)]
        assert wrong == [401] * 5 + [429] * 2
        assert two.get("/api/v1/fleet", headers=good).status_code == 429
    services.database.close()


def test_a_provider_that_calls_itself_otherwise_is_not_believed(
    issuer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys would vouch for another's people."""
    accounts = Accounts(settings(issuer, None))
    real = httpx.Client.get

    def renamed(self: httpx.Client, url: str, **more: Any) -> httpx.Response:
        answer = real(self, url, **more)
        if url.endswith("openid-configuration"):
            told = answer.json() | {"issuer": "https://other.example"}
            return httpx.Response(200, json=told, request=answer.request)
        return answer

    monkeypatch.setattr(httpx.Client, "get", renamed)
    with pytest.raises(Unavailable, match=r"calls itself 'https://other.example'"):
        accounts.begin()
