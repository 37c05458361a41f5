"""Attacks on the server's API and pages: tokens, roles, forms, paths, sizes, the log."""

import contextlib
import http.client
import re
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator

import httpx
from fastapi.routing import APIRoute

from fleet_server.config import RequestsConfig
from fleet_server.console import logging_in, pages, watching
from fleet_server.console.rendering import SESSION_COOKIE
from fleet_server.http_head import MAX_HEAD_BYTES
from fleet_server.services.clock import wall_clock
from fleet_server.storage import append_only
from tests.security.fleet import SECONDS, Fleet
from tests.security.scenario import Scenario, Tries, expect

UNAUTHORIZED, FORBIDDEN, TOO_LARGE, TOO_MANY = 401, 403, 413, 429
WITHOUT_TOKEN = ("/api/v1/enrol", "/api/v1/enrol/renew")
CHANGE_NOTHING = ("/api/v1/rollout-plans/check", "/api/v1/verdicts/{verdict}/replay")
ROLES_BELOW = ("viewer", "ci", "approver")
MOST_WRONG = RequestsConfig().refused_per_minute
STALLED = 100
MEBIBYTES = 16


def _calls(fleet: Fleet) -> list[tuple[str, str]]:
    """Method and path of every call of the API that is described, new ones by themselves."""
    paths = fleet.visitor().get("/openapi.json").json()["paths"]
    found = [
        (method, path)
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/api/v1/") and path not in WITHOUT_TOKEN
    ]
    expect(len(found) > 80, f"only {len(found)} calls are described")
    return found


def _filled(path: str) -> str:
    return re.sub(r"\{\w+\}", "7", path)


def _write_calls(fleet: Fleet) -> list[tuple[str, str]]:
    return [
        (method, path)
        for method, path in _calls(fleet)
        if method != "get" and path not in CHANGE_NOTHING
    ]


def _asked(client: httpx.Client, method: str, path: str) -> httpx.Response:
    return client.request(method, _filled(path), json=None if method in ("get", "delete") else {})


def _tokens(fleet: Fleet, tries: Tries) -> None:
    client = fleet.server.client
    short = client.create_token("short", "operator", expires_ms=wall_clock() + 300)
    ended = client.create_token("ended", "operator")
    (row,) = [row for row in client.tokens() if row["name"] == "ended"]
    session = _logged_in(fleet, ended)
    client.revoke_token(row["token"])
    time.sleep(0.3)
    for what, token, reason in (
        ("a token that nobody made", "x", "token"),
        ("a token that has expired", short, "expired"),
        ("a token that was revoked", ended, "token"),
        ("half a token", ended[:10], "token"),
        ("a very long token", "x" * 10_000, "token"),
        ("an enrolment token", client.create_enrol_token("api-1"), "token"),
    ):
        with tries(what):
            answer = fleet.visitor(token).get("/api/v1/fleet")
            expect(answer.status_code == UNAUTHORIZED, f"{answer.status_code}")
            expect(reason in answer.text, f"it does not say {reason!r}: {answer.text}")
    with tries("another way to say a token"):
        secret = (fleet.server.data / "operator.token").read_text().strip()
        for headers in ({"Authorization": f"Basic {secret}"}, {"X-Api-Key": secret}, {}):
            answer = fleet.visitor().get(f"/api/v1/fleet?token={secret}", headers=headers)
            expect(answer.status_code == UNAUTHORIZED, f"{headers}: {answer.status_code}")
    with tries("the session of a token that was revoked"):
        answer = fleet.visitor(cookies={SESSION_COOKIE: session}).get("/")
        expect(answer.headers.get("location") == "/login", f"{answer.status_code}")
    calls = _calls(fleet)
    with tries(f"{len(calls)} calls without a token"):
        for number, (method, path) in enumerate(calls):
            if number % (MOST_WRONG // 2) == 0:
                nobody = fleet.visitor()
            answer = _asked(nobody, method, path)
            expect(answer.status_code == UNAUTHORIZED, f"{method} {path}: {answer.status_code}")


def _roles(fleet: Fleet, tries: Tries) -> None:
    calls = _write_calls(fleet)
    with tries(f"{len(calls)} calls that change something, by a viewer"):
        viewer = fleet.visitor(fleet.server.client.create_token("viewer", "viewer"))
        for method, path in calls:
            answer = _asked(viewer, method, path)
            expect(answer.status_code == FORBIDDEN, f"{method} {path}: {answer.status_code}")
    for role in ROLES_BELOW:
        with tries(f"a token and an enrolment token, by a {role}"):
            caller = fleet.visitor(fleet.server.client.create_token(role, role))
            for path, body in (
                ("tokens", {"name": "eve", "role": "operator"}),
                ("enrol/tokens", {"devices": "*"}),
                ("certificates/revoke", {"device": "watch-1"}),
            ):
                answer = caller.post(f"/api/v1/{path}", json=body)
                expect(answer.status_code == FORBIDDEN, f"{path}: {answer.status_code}")


def _models(fleet: Fleet, tries: Tries) -> None:
    """A token for one model, on another and on what is of no model."""
    secret = fleet.server.client.create_token("narrow", "operator", models=["somebody-elses"])
    caller, model = fleet.visitor(secret), fleet.release.model
    for method, path, body in (
        ("PUT", f"budgets/{model}/day", {"amount": 3.0}),
        ("POST", "retraining/requests", {"model": model}),
        ("POST", "rollouts", {"release": fleet.release.name}),
        ("PUT", "prices", {"device_second": 1.0}),
        ("POST", "commands", {"devices": ["watch-1"], "kind": "fallback_on"}),
        ("POST", "tokens", {"name": "eve", "role": "operator"}),
        ("POST", "certificates/revoke", {"device": "watch-1"}),
    ):
        with tries(f"{method} {path}"):
            answer = caller.request(method, f"/api/v1/{path}", json=body)
            expect(answer.status_code == FORBIDDEN, f"{answer.status_code}: {answer.text[:200]}")
            expect("is for somebody-elses only" in answer.text, answer.text[:200])
    # Of labels, each one is refused by itself.
    calls = [call for call in _write_calls(fleet) if call[1] != "/api/v1/labels"]
    with tries(f"{len(calls)} calls that change something"):
        for method, path in calls:
            status = _asked(caller, method, path).status_code
            expect(status in (403, 404, 422), f"{method} {path}: {status}")


def _logged_in(fleet: Fleet, token: str) -> str:
    answer = fleet.visitor().post("/login", data={"token": token})
    expect(answer.status_code == 303, f"nobody can log in: {answer.status_code}")
    return str(answer.cookies[SESSION_COOKIE])


def _forms(fleet: Fleet, tries: Tries) -> None:
    secret = fleet.server.client.create_token("olga", "operator")
    session = _logged_in(fleet, secret)
    browser = fleet.visitor(cookies={SESSION_COOKIE: session})
    forms = [
        route.path
        for router in (pages.router, logging_in.router, watching.router)
        for route in router.routes
        if isinstance(route, APIRoute) and "POST" in (route.methods or ())
    ]
    expect({"/login", "/logout"} <= set(forms), f"the forms are {forms}")
    for form in sorted(set(forms)):
        for name, value in (
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Origin", fleet.server.url.replace("127.0.0.1", "127.0.0.1.evil.example")),
            ("Sec-Fetch-Site", "cross-site"),
        ):
            with tries(f"a form for {form} of another site: {name} {value}"):
                answer = browser.post(form, data={"token": secret}, headers={name: value})
                expect(answer.status_code == FORBIDDEN, f"{answer.status_code}")
                expect("set-cookie" not in answer.headers, "it sets a cookie")
    with tries("a call of the API with somebody's session only"):
        answer = browser.post("/api/v1/tokens", json={"name": "eve", "role": "operator"})
        expect(answer.status_code == UNAUTHORIZED, f"{answer.status_code}")
    with tries("a session that a script or plain HTTP can see"):
        answer = fleet.visitor().post("/login", data={"token": secret})
        flags = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
        expect({"secure", "httponly", "samesite=strict"} <= flags, f"only {flags}")
    with tries("a page in somebody's frame"):
        policy = browser.get("/").headers.get("content-security-policy", "")
        expect("frame-ancestors 'none'" in policy, f"the policy is {policy!r}")
        expect("default-src 'none'" in policy, f"the policy is {policy!r}")


PATHS = (
    "/repository/metadata/../../operator.token",
    "/repository/../operator.token",
    "/repository/metadata/%2e%2e/%2e%2e/operator.token",
    "/repository/metadata/..%2f..%2foperator.token",
    "/repository/metadata/%252e%252e/%252e%252e/operator.token",
    "/repository/metadata/..%5c..%5coperator.token",
    "/repository/metadata/....//....//operator.token",
    "/repository/targets/../../online/snapshot.pem",
    "/repository/targets/../../ca/ca.key",
    "/repository/metadata//etc/passwd",
    "/repository/metadata/%2fetc%2fpasswd",
    "/repository//etc/passwd",
    "/repository/metadata/%00",
    "/repository/metadata/timestamp.json%00.pem",
    "/repository/metadata/%ff%fe",
    "/repository/metadata/",
    "/repository/targets/",
    "/repository/metadata/" + "a/" * 2000,
)


def _paths(fleet: Fleet, tries: Tries) -> None:
    status, data = _got(fleet, "/repository/metadata/timestamp.json")
    expect((status, b"signatures" in data) == (200, True), f"nothing is served: {status}")
    for path in PATHS:
        with tries(f"GET {path[:60]}"):
            status, data = _got(fleet, path)
            expect(400 <= status < 500, f"{status}: {data[:80]!r}")
    (fleet.server.data / "repository" / "targets" / "leak").symlink_to(
        fleet.server.data / "operator.token"
    )
    with tries("a link that leads out of the folder"):
        status, data = _got(fleet, "/repository/targets/leak")
        expect(400 <= status < 500, f"{status}: {data[:20]!r}")


def _got(fleet: Fleet, path: str) -> tuple[int, bytes]:
    """Ask for exactly this path: clients with manners shorten it."""
    trusting = ssl.create_default_context(cafile=fleet.server.ca_file)
    line = http.client.HTTPSConnection(
        "127.0.0.1", fleet.server.port, context=trusting, timeout=SECONDS,
        source_address=(fleet.address(), 0),
    )  # fmt: skip
    with contextlib.closing(line):
        line.putrequest("GET", path, skip_accept_encoding=True)
        line.endheaders()
        answer = line.getresponse()
        return answer.status, answer.read()


def _sizes(fleet: Fleet, tries: Tries) -> None:
    secret = (fleet.server.data / "operator.token").read_text().strip()
    caller = fleet.visitor(secret)
    for path, size in (
        ("/api/v1/rollouts", 1 << 20),
        ("/api/v1/labels", 5 << 20),
        ("/api/v1/tokens", 1 << 20),
        ("/login", 1 << 20),
    ):
        with tries(f"{size >> 20} MiB for {path}"):
            answer = caller.post(path, content=(b"x" * 65_536 for _ in range(size >> 16)))
            expect(answer.status_code == TOO_LARGE, f"{answer.status_code}: {answer.text[:200]}")
    for what, head, part in (
        ("a header field without an end", b"X: ", b"a" * 65_536),
        ("header fields without an end", b"", b"X: " + b"a" * 1000 + b"\r\n"),
    ):
        with tries(what):
            _cut_off(fleet, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + head, part)
    with tries("an address without an end"):
        _cut_off(fleet, b"GET /healthz?", b"a" * 65_536)
    with tries("trailers without an end"):
        head = b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "
        _cut_off(fleet, head, b"a" * 65_536)
    with tries("a length that lies, and two of them"):
        for lengths in (b"Content-Length: -1\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n"):
            with fleet.web_line() as line:
                line.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\nx")
                expect(b" 400 " in line.recv(4096), f"{lengths!r} is taken")
    with tries(f"{STALLED} requests that do not end"), contextlib.ExitStack() as stack:
        for _ in range(STALLED):
            stack.enter_context(fleet.web_line()).sendall(b"GET /healthz HTTP/1.1\r\nHos")
    with tries(f"{STALLED} handshakes that do not begin"), contextlib.ExitStack() as stack:
        for _ in range(STALLED):
            place = ("127.0.0.1", fleet.server.port)
            stack.enter_context(socket.create_connection(place, timeout=SECONDS))


def _cut_off(fleet: Fleet, head: bytes, part: bytes) -> None:
    """Say it, then a part again and again; raises where the connection is not ended for it."""
    with fleet.web_line() as line, contextlib.suppress(ConnectionError, ssl.SSLError):
        line.sendall(head)
        for _ in range((MEBIBYTES << 20) // len(part)):
            line.sendall(part)
        expect(False, f"it takes {MEBIBYTES} MiB where {MAX_HEAD_BYTES} bytes are the most")


def _audit(fleet: Fleet, tries: Tries) -> None:
    client = fleet.server.client
    for number in range(6):
        client.create_token(f"audit-{number}", "viewer")
    good = client.verify_audit()
    expect(good["holds"] and good["entries"] > 5, f"the log does not hold before: {good}")
    for what, change in (
        ("an entry that was changed", "UPDATE audit SET actor = 'eve' WHERE entry = 3"),
        ("an entry that was taken out", "DELETE FROM audit WHERE entry = 3"),
        ("an entry that changed its subject", "UPDATE audit SET subject = 'x' WHERE entry = 5"),
    ):
        number = 5 if "5" in change else 3
        with tries(what), _poisoned(fleet, change):
            found = client.verify_audit()
            expect(not found["holds"], "the log is said to hold")
            expect(f"entry {number}" in found["problem"], f"it says {found['problem']!r}")
    with tries("an end that was cut off, against a head that was kept"):
        entries = good["entries"]
        with _poisoned(fleet, f"DELETE FROM audit WHERE entry > {entries - 2}"):
            found = client.verify_audit(good["head"])
            expect(not found["holds"] and "cut off" in found["problem"], f"{found}")
    with (
        tries("to change an entry where nobody has taken the guard away"),
        contextlib.closing(_database(fleet)) as database,
    ):
        try:
            database.execute("UPDATE audit SET actor = 'eve' WHERE entry = 3")
        except sqlite3.IntegrityError as error:
            expect(append_only.REFUSAL in str(error), str(error))
        else:
            expect(False, "the database takes it")
    expect(client.verify_audit()["holds"], "the log does not hold afterwards")


def _database(fleet: Fleet) -> sqlite3.Connection:
    return sqlite3.connect(fleet.server.data / "serinus.sqlite", timeout=SECONDS)


@contextlib.contextmanager
def _poisoned(fleet: Fleet, change: str) -> Iterator[None]:
    """A log that somebody with the whole database has changed; as it was, afterwards."""
    with contextlib.closing(_database(fleet)) as database, database:
        kept = database.execute("SELECT * FROM audit").fetchall()
        guards = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'"
        ).fetchall()
        for name, _ in guards:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(change)
    try:
        yield
    finally:
        with contextlib.closing(_database(fleet)) as database, database:
            marks = ", ".join("?" * len(kept[0]))
            database.executemany(f"INSERT OR REPLACE INTO audit VALUES ({marks})", kept)
            for _, statement in guards:
                database.execute(statement)


def _addresses(fleet: Fleet, tries: Tries) -> None:
    """The last of all: afterwards this machine's own address has to wait."""
    for name, value, address in (
        ("X-Forwarded-For", "192.0.2.{}", fleet.address()),
        ("Forwarded", "for=192.0.2.{}", fleet.address()),
        ("X-Real-IP", "192.0.2.{}", fleet.address()),
        ("X-Forwarded-For", "192.0.2.{}", "127.0.0.1"),  # where a proxy of this machine would be
    ):
        with tries(f"another address at each guess, by {name} from {address}"):
            guesser = fleet.visitor(address=address)
            codes = [
                guesser.post(
                    "/login", data={"token": f"guess{number}"}, headers={name: value.format(number)}
                ).status_code
                for number in range(MOST_WRONG + 1)
            ]
            expect((codes[0], codes[-1]) == (UNAUTHORIZED, TOO_MANY), f"{codes}")


SCENARIOS = [
    Scenario(name="api_tokens", what="no token, or one that has ended", run=_tokens),
    Scenario(name="api_roles", what="calls that a role does not allow", run=_roles),
    Scenario(name="api_models", what="a token for one model, on others", run=_models),
    Scenario(name="console_forms", what="forms of other sites, and sessions", run=_forms),
    Scenario(name="repository_paths", what="files outside of the repository", run=_paths),
    Scenario(name="request_sizes", what="requests too large, or without an end", run=_sizes),
    Scenario(name="audit_log", what="to change what was decided", run=_audit),
    Scenario(name="forwarded_addresses", what="guesses in others' names", run=_addresses),
]
