"""Who may approve releases is decided by the targets key; lists are renewed before they end."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from converters import publishing, renewal, signing
from converters.ceremony import expiry
from edge_core.errors import UntrustedBundle
from tests.simulators.ceremony import Team, done, replaced, serinus_convert
from tests.simulators.tiny_bundle import tiny_bundle

REFUSED = 3
BAD_INPUT = 2


def releases_key(team: Team, name: str) -> Path:
    home = team.folder / name
    done("root", "keygen", name, "--folder", home, "--no-passphrase")
    return home / f"{name}.pub.json"


def test_a_delegation_says_in_words_who_approves_and_needs_the_targets_key(team: Team) -> None:
    path = team.folder / "next.json"
    place = ("--repository", team.repository)
    new = releases_key(team, "releases-2")
    said = done("delegation", "propose", "--out", path, *place, "--replace", new)
    assert re.search(r"- releases .*loses it", said)
    assert re.search(r"\+ releases-2 .*gets it", said)
    said = done("delegation", "status", path, *place)
    assert "by root version 1: 0 of 1 signatures, 1 missing" in said
    assert team.sign(path, "ada", group="delegation").code == REFUSED
    refused = serinus_convert("delegation", "publish", path, *place)
    assert refused.code == REFUSED
    assert "1 more of targets has to sign" in refused.err
    assert team.sign(path, "targets", group="delegation").code == 0
    said = done("delegation", "publish", path, *place)
    assert "the list of releases is signed by none of these keys" in said
    assert "it was already" in done("delegation", "publish", path, *place)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--add", "releases"], "approve releases twice"),
        (["--add", "targets"], "to have a role in the root and to approve"),
        (["--remove", "zoe"], "0 keys of releases are zoe's"),
        (["--remove", "releases"], "it needs 1 to"),
        (["--expires-in", "0d"], "would have expired"),
    ],
)
def test_a_delegation_that_must_not_be_is_not_proposed(
    team: Team, changes: list[str], words: str
) -> None:
    option, value = changes
    given = str(team.public(value)) if option == "--add" else value
    out = team.folder / "x.json"
    said = serinus_convert(
        "delegation", "propose", "--repository", team.repository, "--out", out, option, given
    )
    assert said.code == BAD_INPUT
    assert words in said.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (r'"threshold":1', '"threshold":2'),
        (r'"terminating":true', '"terminating":false'),
        (r'"paths":\[.*?\]', '"paths":["*"]'),
        (r'"name":"releases"', '"name":"others"'),
        (r'"targets":\{\}', '"targets":{"a/1.0.0/x":{"hashes":{"sha256":"00"},"length":1}}'),
    ],
)
def test_a_delegation_of_something_else_is_not_signed(team: Team, pattern: str, by: str) -> None:
    path = team.folder / "next.json"
    done("delegation", "propose", "--repository", team.repository, "--out", path)
    replaced(path, pattern, by)
    said = team.sign(path, "targets", group="delegation")
    assert said.code == BAD_INPUT
    assert "this is another; do not sign it" in said.err


def test_a_list_is_renewed_only_where_it_ends_soon(team: Team) -> None:
    team.publish("1.0.0")
    said = team.renew("--within", "45d")
    assert said.code == 0
    assert "not signed again" in said.out
    said = team.renew("--within", "91d")
    assert "list 3 of 1 releases, signed again" in said.out
    said = team.renew()
    assert "list 4 of 1 releases" in said.out
    listed = Metadata.from_file(str(team.repository / "metadata" / "4.releases.json")).signed
    before = Metadata.from_file(str(team.repository / "metadata" / "2.releases.json")).signed
    assert isinstance(listed, Targets)
    assert isinstance(before, Targets)
    assert listed.targets == before.targets


def test_an_older_list_is_not_taken_over_while_the_newest_is_good(team: Team) -> None:
    team.publish("1.0.0")
    place = ("--repository", team.repository, "--keys", team.keys)
    done("revoke", "tiny-motion@1.0.0", *place)
    said = team.renew("--take-over", "2")
    assert said.code == BAD_INPUT
    assert "list 3 is signed by a key that may approve" in said.err


def test_what_devices_would_not_believe_is_not_signed(team: Team) -> None:
    far = datetime.now(UTC).replace(microsecond=0) + timedelta(days=400)
    bundle = tiny_bundle(team.folder / "bundle", sign_with=signing.generate_key(team.keys))
    with pytest.raises(UntrustedBundle, match=r"make its next version with .* root propose"):
        renewal.renew(team.repository, team.keys, far)
    team.change_root("--expires-in=900d")
    with pytest.raises(UntrustedBundle, match=r"make its next version with .* delegation propose"):
        renewal.renew(team.repository, team.keys, far)
    with pytest.raises(UntrustedBundle, match=r"the targets metadata expired"):
        publishing.publish(bundle, team.repository, team.keys, far)
    team.change_delegation("--expires-in=900d")
    renewal.renew(team.repository, team.keys, far)


def test_a_list_with_a_damaged_file_is_not_taken_over(team: Team) -> None:
    team.publish("1.0.0")
    new = releases_key(team, "releases-2")
    team.change_delegation("--replace", new)
    model = next((team.repository / "targets").rglob("*.card.md"))
    whole = model.read_bytes()
    model.write_bytes(b"other")
    key = ("--key", new.with_name("releases-2.pem"), "--take-over", "2")
    said = team.renew(*key)
    assert said.code == BAD_INPUT
    assert "is not what was listed" in said.err
    model.write_bytes(whole)
    assert team.renew(*key).code == 0


def test_the_status_says_what_ends_when_and_the_exit_code_says_soon(team: Team) -> None:
    place = ("--repository", team.repository)
    said = serinus_convert("repository", "status", *place)
    assert said.code == 0, said.err
    assert [line.split()[0] for line in said.out.splitlines()] == [
        "root", "targets", "releases", "snapshot", "timestamp",
    ]  # fmt: skip
    soon = serinus_convert("repository", "status", *place, "--within", "91d", "--json")
    assert soon.code == REFUSED
    assert "releases is soon: serinus-convert renew" in soon.err
    standing = {row["role"]: row["standing"] for row in json.loads(soon.out)}
    assert standing == {
        "root": "good", "targets": "good", "releases": "soon",
        "snapshot": "missing", "timestamp": "missing",
    }  # fmt: skip
    team.change_delegation("--replace", releases_key(team, "releases-2"))
    said = serinus_convert("repository", "status", *place)
    assert said.code == REFUSED
    assert "releases is untrusted" in said.err
    path = team.propose("--expires-in=10d")
    assert serinus_convert("root", "status", path, *place, "--within", "400d").code == REFUSED


def test_what_has_ended_is_said_to_have(team: Team) -> None:
    far = datetime.now(UTC) + timedelta(days=366)
    found = expiry.of_repository(team.repository, None, far, timedelta(days=30))
    assert {ending.role: ending.standing for ending in found if ending.version} == dict.fromkeys(
        ("root", "targets", "releases"), "expired"
    )


def test_a_folder_that_is_no_repository_is_named(tmp_path: Path) -> None:
    for arguments in (
        ("repository", "status", "--repository", tmp_path),
        ("root", "propose", "--out", tmp_path / "x.json", "--repository", tmp_path),
        ("delegation", "propose", "--out", tmp_path / "x.json", "--repository", tmp_path / "a"),
    ):
        said = serinus_convert(*arguments)
        assert said.code == BAD_INPUT
        assert "has no folder metadata" in said.err


def test_a_beginning_that_broke_off_goes_on(team: Team, tmp_path: Path) -> None:
    metadata = team.repository / "metadata"
    again = ("init-repository", "--repository", team.repository, "--keys", team.keys,
             "--root", metadata / "1.root.json")  # fmt: skip
    for lost in (["1.releases.json"], ["1.releases.json", "1.targets.json"]):
        for name in lost:
            (metadata / name).unlink()
        done(*again)
        assert serinus_convert("repository", "status", "--repository", team.repository).code == 0
    other = Team(tmp_path)
    (team.keys / "1.root.json").write_bytes(b"{}")
    said = serinus_convert(*again)
    assert said.code == BAD_INPUT
    assert "is not a proposal" in said.err
    assert not other.repository.exists()
