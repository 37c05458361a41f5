"""Whom a device trusts as its fleet: what it was given, what it has learnt, and what is void."""

import ssl
from pathlib import Path

import pytest

from edge_agent.identity.files import LEARNT, IdentityFiles
from edge_agent.identity.trust import MOST_AUTHORITIES, Trust
from edge_core.errors import InvalidConfiguration, InvalidMessage, NoDisk
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.services.clock import wall_clock


class Fleet:
    """A server that is made of its certificate, and its authority."""

    def __init__(self, folder: Path) -> None:
        self.authority = DeviceCa(folder)
        self.file = self.authority.certify_server(["localhost"], now_ms=wall_clock())
        self.pem = self.authority.trusted(wall_clock())

    def knows(self, context: ssl.SSLContext) -> bool:
        """Whether a client that connects now takes this server for its fleet's."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self.file)
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(back, there, server_hostname="localhost")
        answering = server.wrap_bio(there, back, server_side=True)
        for one in (client, answering, client):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
        return True


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("after"))


@pytest.fixture
def given(before: Fleet, tmp_path: Path) -> Path:
    path = tmp_path / "fleet-ca.pem"
    path.write_text(before.pem)
    return path


def test_connections_follow_what_is_learnt_and_so_does_the_next_start(
    before: Fleet, after: Fleet, given: Path, tmp_path: Path
) -> None:
    files = IdentityFiles(tmp_path)
    trust = Trust(files, given)
    same = tmp_path / "same.pem"
    same.write_bytes(given.read_bytes())
    for context in (trust.context(given), trust.context(same)):
        assert (before.knows(context), after.knows(context)) == (True, False)
        trust.learn(before.pem + after.pem)
        assert (before.knows(context), after.knows(context)) == (True, True)
        trust.learn(after.pem)
        assert (before.knows(context), after.knows(context)) == (False, True)
        again = Trust(files, given).context(given)
        assert (before.knows(again), after.knows(again)) == (False, True)
        trust.learn(before.pem)  # whatever was answered once, the next answer replaces it
        assert (before.knows(context), after.knows(context)) == (True, False)


def test_another_file_is_not_replaced_and_makes_void_what_was_learnt(
    before: Fleet, after: Fleet, given: Path, tmp_path: Path
) -> None:
    trust, other = Trust(IdentityFiles(tmp_path), given), tmp_path / "other.pem"
    other.write_text("of another broker\n" + before.pem)
    context = trust.context(other)
    trust.learn(before.pem + after.pem)
    trust.learn(after.pem)
    assert (before.knows(context), after.knows(context)) == (True, False)
    changed = Trust(IdentityFiles(tmp_path), other).context(other)
    assert (before.knows(changed), after.knows(changed)) == (True, False)


def test_authorities_of_others_stay_beside_what_is_learnt(
    before: Fleet, after: Fleet, tmp_path: Path
) -> None:
    company, given = Fleet(tmp_path / "company"), tmp_path / "ca.pem"
    given.write_text(company.pem + before.pem)
    files = IdentityFiles(tmp_path)
    trust = Trust(files, given)
    context = trust.context(given)
    trust.learn(before.pem + after.pem)
    trust.learn(after.pem)
    for one in (context, Trust(files, given).context(given)):
        known = (company.knows(one), before.knows(one), after.knows(one))
        assert known == (True, False, True)


def test_who_was_given_no_authority_of_the_fleet_learns_none(
    before: Fleet, after: Fleet, tmp_path: Path
) -> None:
    """HTTPS and broker are certified by others: their authorities go on to be trusted."""
    company, given = Fleet(tmp_path / "company"), tmp_path / "ca.pem"
    given.write_text(company.pem)
    files = IdentityFiles(tmp_path)
    trust = Trust(files, given)
    context = trust.context(given)
    trust.learn(before.pem + after.pem)
    assert company.knows(context)
    assert files.learnt() is None


def test_only_authorities_are_learnt(
    before: Fleet, after: Fleet, given: Path, tmp_path: Path
) -> None:
    files = IdentityFiles(tmp_path)
    trust = Trust(files, given)
    trust.learn(before.pem + after.pem)
    trust.learn(after.pem)
    context = trust.context(given)
    kept = files.learnt()
    device = after.authority.identity("watch-1", now_ms=wall_clock())[0].pem
    cut = before.pem[: len(before.pem) // 2]
    for chain in ("", "nothing", device, before.pem + device, after.pem + cut, cut):
        with pytest.raises(InvalidMessage, match="authorit"):
            trust.learn(chain)
    with pytest.raises(InvalidMessage, match=f"more than {MOST_AUTHORITIES}"):
        trust.learn(after.pem * (MOST_AUTHORITIES + 1))
    assert files.learnt() == kept
    assert (before.knows(context), after.knows(context)) == (False, True)


def test_what_cannot_be_kept_is_not_trusted(
    before: Fleet, after: Fleet, given: Path, tmp_path: Path
) -> None:
    (tmp_path / "identity").write_text("a file in its place")
    with pytest.raises((NoDisk, InvalidConfiguration), match="identity"):
        Trust(IdentityFiles(tmp_path), given)
    (tmp_path / "identity").unlink()
    trust = Trust(IdentityFiles(tmp_path), given)
    context = trust.context(given)
    (tmp_path / "identity").write_text("a file in its place")
    with pytest.raises(NoDisk):
        trust.learn(before.pem + after.pem)
    assert (before.knows(context), after.knows(context)) == (True, False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-20],
        lambda data: data.replace(b'"version":1', b'"version":2'),
        lambda data: data.replace(b"BEGIN", b"begin"),
        lambda data: b"\xff" + data,
    ],
)
def test_what_is_damaged_is_void(
    before: Fleet, after: Fleet, given: Path, tmp_path: Path, damage: object
) -> None:
    files = IdentityFiles(tmp_path)
    Trust(files, given).learn(before.pem + after.pem)
    path = tmp_path / "identity" / LEARNT
    data = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(damage(data))  # type: ignore[operator]  # one of the functions above
    assert path.read_bytes() != data
    context = Trust(files, given).context(given)
    assert (before.knows(context), after.knows(context)) == (True, False)
