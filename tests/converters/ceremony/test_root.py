"""Three people make and change a root; nobody alone does, and no wrong input gets far."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Key, Metadata, Root

from converters.ceremony import root_change
from converters.ceremony.root_change import Change
from converters.keys import key_file
from edge_core.errors import InvalidConfiguration
from tests.simulators.ceremony import Team, done, fingerprint, replaced, serinus_convert
from tests.simulators.processes import command

REFUSED = 3
BAD_INPUT = 2


def root(team: Team, version: int) -> Root:
    path = team.repository / "metadata" / f"{version}.root.json"
    signed = Metadata.from_file(str(path)).signed
    assert isinstance(signed, Root)
    return signed


def holders(found: Root, role: str = "root") -> list[str]:
    keys = [found.keys[keyid] for keyid in found.roles[role].keyids]
    return [str(key.unrecognized_fields["x-serinus-holder"]) for key in keys]


def test_a_first_ceremony_ends_with_an_empty_repository(team: Team) -> None:
    made = root(team, 1)
    assert holders(made) == ["ada", "ben", "cara"]
    assert made.roles["root"].threshold == 2
    assert made.consistent_snapshot
    assert not list(team.repository.rglob("*.pem"))
    names = {path.name for path in (team.repository / "metadata").iterdir()}
    assert names == {"1.root.json", "root.json", "1.targets.json", "1.releases.json"}
    assert (team.keys / "1.root.json").read_bytes() == (
        team.repository / "metadata" / "1.root.json"
    ).read_bytes()


def test_the_words_say_who_could_and_who_can(team: Team) -> None:
    team.keygen("dan")
    path = team.folder / "next.json"
    said = done(
        "root", "propose", "--repository", team.repository, "--out", path,
        "--remove=root=cara", f"--add=root={team.public('dan')}", "--expires-in=200d",
    )  # fmt: skip
    assert "version 1 -> 2" in said
    lines = {line.split()[1]: line for line in said.splitlines() if line[4:5] in "+-"}
    assert "loses it" in lines["cara"]
    assert "gets it" in lines["dan"]
    assert f"fingerprint of this proposal: {fingerprint(path)}" in said
    assert "nobody's power changes" in done(
        "root", "propose", "--repository", team.repository, "--out", team.folder / "same.json"
    )


def test_status_counts_by_the_old_and_by_the_new_root(team: Team) -> None:
    team.keygen("dan")
    team.keygen("eve")
    path = team.propose(
        "--remove=root=cara",
        "--remove=root=ben",
        f"--add=root={team.public('dan')}",
        f"--add=root={team.public('eve')}",
    )
    for name in ("ada", "dan"):
        assert team.sign(path, name).code == 0
    said = done("root", "status", path, "--repository", team.repository)
    assert "by version 1: 1 of 2 signatures, 1 missing; signed: ada; not yet: ben, cara" in said
    assert "by version 2: 2 of 2 signatures, enough; signed: ada, dan; not yet: eve" in said
    assert "releases   version 1" in said
    refused = serinus_convert("root", "publish", path, "--repository", team.repository)
    assert refused.code == REFUSED
    assert "by version 1, 1 more of ben, cara has to sign" in refused.err
    assert team.sign(path, "cara").code == 0  # who leaves agrees to it
    done("root", "publish", path, "--repository", team.repository)
    assert holders(root(team, 2)) == ["ada", "dan", "eve"]


def test_copies_that_were_signed_apart_are_put_together(team: Team) -> None:
    path = team.propose("--expires-in=100d")
    copy = path.with_name("copy.json")
    shutil.copy(path, copy)
    assert team.sign(path, "ada").code == team.sign(copy, "cara").code == 0
    done("root", "publish", path, copy, "--repository", team.repository)
    again = done("root", "publish", path, copy, "--repository", team.repository)
    assert "it was already" in again
    assert root(team, 2).version == 2


def test_two_who_signed_different_proposals_learn_it(team: Team) -> None:
    one, other = team.propose("--expires-in=100d"), team.propose("--expires-in=101d")
    assert team.sign(one, "ada").code == team.sign(other, "ben").code == 0
    said = serinus_convert("root", "publish", one, other, "--repository", team.repository)
    assert said.code == REFUSED
    assert "different proposals" in said.err
    assert fingerprint(one) in said.err
    assert fingerprint(other) in said.err


def test_a_proposal_that_was_changed_after_a_signature_goes_no_further(team: Team) -> None:
    path = team.propose("--expires-in=100d")
    assert team.sign(path, "ada").code == 0
    before = path.read_bytes()
    replaced(path, r'"version":2', '"version" : 2')  # the same content, other spaces
    assert team.sign(path, "ben").code == 0
    path.write_bytes(before)
    replaced(path, r'"expires":"\d{4}', '"expires":"2028')
    for verb, more in (("sign", ("--key", team.private("ben"))), ("publish", ()), ("status", ())):
        said = serinus_convert("root", verb, path, "--repository", team.repository, *more)
        assert said.code == REFUSED, said
        assert "the signature of ada is not for this proposal" in said.err
    assert not (team.repository / "metadata" / "2.root.json").exists()


def test_a_foreign_key_has_no_say(team: Team) -> None:
    team.keygen("mallory")
    path = team.propose("--expires-in=100d")
    before = path.read_bytes()
    said = team.sign(path, "mallory")
    assert said.code == REFUSED
    assert "has no say in this proposal; these have: ada" in said.err
    assert path.read_bytes() == before
    assert team.sign(path, "targets").code == REFUSED


def test_a_wrong_passphrase_signs_nothing(team: Team) -> None:
    path = team.propose("--expires-in=100d")
    team.secret("ada").write_text("the passphrase of somebody else")
    said = team.sign(path, "ada")
    assert said.code == BAD_INPUT
    assert "the passphrase does not open" in said.err
    assert json.loads(path.read_text())["signatures"] == []


def test_who_types_another_fingerprint_signs_nothing(team: Team) -> None:
    path = team.propose("--expires-in=100d")
    key = ("--key", team.private("ada"), "--repository", team.repository)
    for given in ("0" * 32, fingerprint(path)[:9], ""):
        said = serinus_convert("root", "sign", path, *key, "--fingerprint", given)
        assert said.code == REFUSED
        assert "not the fingerprint of this proposal" in said.err
    said = serinus_convert("root", "sign", path, *key)
    assert said.code == REFUSED
    assert "nobody is here to compare" in said.err


def test_versions_follow_one_another(team: Team) -> None:
    first, late = team.propose("--expires-in=100d"), team.propose("--expires-in=101d")
    for path in (first, late):
        for name in ("ada", "ben"):
            assert team.sign(path, name).code == 0
    done("root", "publish", first, "--repository", team.repository)
    said = serinus_convert("root", "publish", late, "--repository", team.repository)
    assert said.code == REFUSED
    assert "says something else" in said.err
    replaced(late, r'"version":2', '"version":5')
    said = serinus_convert("root", "publish", late, "--repository", team.repository)
    assert said.code == REFUSED
    assert "only 3 can follow" in said.err


def test_a_holder_with_an_own_copy_sees_through_another_chain(team: Team, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Team(tmp_path / "other")
    other.begin()
    path = other.propose("--expires-in=100d")
    said = serinus_convert(
        "root", "sign", path, "--key", team.private("ada"), "--fingerprint", fingerprint(path),
        "--repository", other.repository, "--trusted-root", team.keys / "1.root.json",
        "--passphrase-file", team.secret("ada"),
    )  # fmt: skip
    assert said.code == BAD_INPUT
    assert "says something else than" in said.err
    other.change_root("--expires-in=100d")
    said = serinus_convert(
        "root", "propose", "--out", tmp_path / "x.json", "--repository", other.repository,
        "--trusted-root", team.keys / "1.root.json",
    )  # fmt: skip
    assert said.code == BAD_INPUT
    assert "is not trusted" in said.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--threshold=root=4"], "asks for 4 signatures and has 3 keys"),
        (["--threshold=root=1"], "one stolen key could replace everybody"),
        (["--remove=root=ben", "--remove=root=cara"], "asks for 2 signatures and has 1 keys"),
        (["--remove=timestamp=timestamp"], "timestamp has no key"),
        (["--remove=root=zoe"], "0 keys of root are zoe's"),
        (["--add=root=ada"], "has the key ada .* twice"),
        (["--add=targets=ada"], "is to be root and targets"),
        (
            ["--replace=root=releases", "--add=root=ben", "--add=root=ada"],
            "and to approve releases",
        ),
        (["--expires-in=0d"], "would have expired"),
        (["--expires-in=2000d"], "the longest life"),
        (["--add=root=nobody"], "cannot read"),
    ],
)
def test_a_root_that_must_not_be_is_not_even_proposed(
    team: Team, changes: list[str], words: str
) -> None:
    out = team.folder / "x.json"
    args = []
    for change in changes:
        option, role, who = change.split("=") if change.count("=") == 2 else (change, "", "")
        known = sorted(team.folder.rglob(f"{who}.pub.json")) if who else []
        if option in ("--add", "--replace"):
            change = f"{option}={role}={known[0] if known else 'nobody.pub.json'}"
        args.append(change)
    said = serinus_convert("root", "propose", "--repository", team.repository, "--out", out, *args)
    assert said.code == BAD_INPUT
    assert re.search(words, said.err), said.err
    assert not out.exists()


def test_wrong_use_is_said(team: Team) -> None:
    out = team.folder / "x.json"
    place = ("--repository", team.repository, "--out", out)
    for more, words in (
        (["--add=boss=x.json"], "ROLE is root, targets, snapshot, timestamp"),
        (["--threshold=root=many"], "write ROLE=N"),
        (["--expires-in=1y"], "write days"),
    ):
        said = serinus_convert("root", "propose", *place, *more)
        assert said.code == 1
        assert words in said.err
    out.write_text("mine")
    assert serinus_convert("root", "propose", *place).code == 1
    assert out.read_text() == "mine"


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff{")


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def large(path: Path) -> None:
    os.truncate(path, 2 * 1024 * 1024)


def other_kind(path: Path) -> None:
    shutil.copy(path.parent / "repository" / "metadata" / "1.targets.json", path)


def dangling_key(path: Path) -> None:
    document = json.loads(path.read_text())
    document["signed"]["keys"] = {}
    path.write_text(json.dumps(document))


def without_snapshots(path: Path) -> None:
    replaced(path, r'"consistent_snapshot":true', '"consistent_snapshot":false')


def key_under_another_name(path: Path) -> None:
    document = json.loads(path.read_text())
    signed = document["signed"]
    first, second = signed["roles"]["root"]["keyids"][:2]
    signed["keys"][second] = signed["keys"][first]  # one person who counts as two
    path.write_text(json.dumps(document))


def no_threshold(path: Path) -> None:
    replaced(path, r'"threshold":2', '"threshold":1')


@pytest.mark.parametrize(
    "spoil",
    [
        garbage, deep, large, other_kind, dangling_key, without_snapshots, key_under_another_name,
        no_threshold,
    ],
)  # fmt: skip
def test_a_malformed_proposal_is_one_line(team: Team, spoil: Callable[[Path], None]) -> None:
    path = team.propose("--expires-in=100d")
    spoil(path)
    key = ("--key", team.private("ada"), "--fingerprint", "0" * 16)
    for verb, more in (("sign", key), ("status", ()), ("publish", ())):
        said = serinus_convert("root", verb, path, "--repository", team.repository, *more)
        assert said.code == BAD_INPUT, said
        assert len(said.err.splitlines()) == 1
    assert not (team.repository / "metadata" / "2.root.json").exists()


def test_a_root_that_expired_before_it_was_published_stays_out(team: Team) -> None:
    path = team.root_of("--expires-in=1d", signers=("ada", "ben"))
    metadata = Metadata[Root].from_file(str(path))
    later = datetime.now(UTC) + timedelta(days=2)
    with pytest.raises(InvalidConfiguration, match="would have expired"):
        root_change.check(metadata.signed, later)


def test_an_expired_root_can_still_be_replaced() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    keys: list[Key] = [key_file.new_tuf_key().public_key for _ in range(6)]
    roles = ("root", "root", "root", "targets", "snapshot", "timestamp")
    change = Change(expires=now + timedelta(days=10), add=list(zip(roles, keys, strict=True)))
    first = root_change.following(None, change, now)
    later = now + timedelta(days=400)
    again = root_change.following(first, Change(expires=later + timedelta(days=10)), later)
    assert (again.version, again.roles) == (2, first.roles)


def test_snapshot_and_timestamp_may_share_the_servers_key() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    keys: list[Key] = [key_file.new_tuf_key().public_key for _ in range(5)]
    roles = ("root", "root", "root", "targets", "snapshot")
    add = [*zip(roles, keys, strict=True), ("timestamp", keys[4])]
    made = root_change.following(None, Change(expires=now + timedelta(days=10), add=add), now)
    assert made.roles["snapshot"].keyids == made.roles["timestamp"].keyids


def test_two_who_sign_one_file_at_once_both_have_signed(team: Team) -> None:
    path = team.propose("--expires-in=100d")
    signing = [
        subprocess.Popen(
            [*command("serinus-convert"), "root", "sign", path, "--key", team.private(name),
             "--passphrase-file", team.secret(name), "--repository", team.repository,
             "--fingerprint", fingerprint(path)],
            stdout=subprocess.DEVNULL,
        )
        for name in ("ada", "ben", "cara")
    ]  # fmt: skip
    assert [process.wait(60) for process in signing] == [0, 0, 0]
    said = done("root", "status", path, "--repository", team.repository)
    assert said.count("3 of 2 signatures") == 2


def test_too_few_signatures_leave_no_repository_behind(team: Team, tmp_path: Path) -> None:
    roles = ("targets", "snapshot", "timestamp")
    path = team.root_of(
        *(f"--add=root={team.public(name)}" for name in ("ada", "ben", "cara")),
        *(f"--add={role}={team.public(role)}" for role in roles),
        signers=("ada",),
        first=True,
    )
    said = serinus_convert("root", "publish", path, "--repository", tmp_path / "fresh")
    assert said.code == REFUSED
    assert not (tmp_path / "fresh").exists()
