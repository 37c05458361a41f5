"""Key files are encrypted, passphrases come from three places, URIs are read as RFC 7512 says."""

import os
import pty
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from converters import publishing, signing
from converters.ceremony import public_key
from converters.keys import access, key_file, opening, pkcs11_uri
from converters.keys.access import KeyAccess
from converters.keys.pkcs11_uri import TokenKeyName
from edge_core.errors import InvalidConfiguration
from tests.simulators.ceremony import done, serinus_convert
from tests.simulators.processes import command
from tests.simulators.tiny_bundle import tiny_bundle

SECRET = "correct horse battery staple"
BAD_INPUT = 2


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture(autouse=True)
def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(access.PASSPHRASE, raising=False)


def everything(folder: Path, *more: object) -> None:
    """Let every command that makes keys make some."""
    done("keygen", folder / "keys", *more)
    place = ("--repository", folder / "repository", "--keys", folder / "keys")
    done("init-repository", *place, *more)
    done("root", "keygen", "ada", "--folder", folder / "ada", *more)
    done("delegation", "keygen", "releases-2", "--folder", folder / "team", *more)


def test_every_key_of_people_is_encrypted_and_the_servers_two_are_not(
    tmp_path: Path, secret: Path
) -> None:
    everything(tmp_path, "--passphrase-file", secret)
    private = {path for path in tmp_path.rglob("*.pem") if path.name != signing.PUBLIC_KEY}
    online = {path for path in private if path.parent.name == publishing.ONLINE}
    assert (len(private), len(online)) == (10, 2)
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (b"ENCRYPTED" in path.read_bytes()) == (path not in online)
        if path not in online:
            load_pem_private_key(path.read_bytes(), SECRET.encode())


def test_keys_without_a_passphrase_are_made_only_where_asked_for(tmp_path: Path) -> None:
    for arguments in (
        ("keygen", tmp_path / "a"),
        ("init-repository", "--repository", tmp_path / "r", "--keys", tmp_path / "k"),
        ("root", "keygen", "ada", "--folder", tmp_path / "b"),
    ):
        said = serinus_convert(*arguments)
        assert said.code == BAD_INPUT
        assert "--no-passphrase" in said.err
    assert list(tmp_path.iterdir()) == []
    everything(tmp_path, "--no-passphrase")
    for path in tmp_path.rglob("*.pem"):
        if path.name != signing.PUBLIC_KEY:
            load_pem_private_key(path.read_bytes(), None)


def test_a_short_passphrase_is_refused(tmp_path: Path, secret: Path) -> None:
    secret.write_text("fifteen letters\nand more")
    said = serinus_convert("keygen", tmp_path / "a", "--passphrase-file", secret)
    assert said.code == BAD_INPUT
    assert "at least 16 characters" in said.err


def test_encrypted_keys_sign_and_publish(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(tmp_path, "--passphrase-file", secret)
    keys = tmp_path / "keys"
    bundle = tiny_bundle(tmp_path / "bundle")
    with pytest.raises(InvalidConfiguration, match="is encrypted: name a file"):
        signing.sign_folder(bundle, keys / signing.PRIVATE_KEY)
    given = access.of_person(secret)
    signing.sign_folder(bundle, signing.open_key(keys / signing.PRIVATE_KEY, given))
    place = ("--repository", tmp_path / "repository", "--keys", keys)
    said = serinus_convert("publish", bundle, *place)
    assert said.code == BAD_INPUT
    assert "releases.pem is encrypted" in said.err
    monkeypatch.setenv(access.PASSPHRASE, "something else entirely")
    said = serinus_convert("publish", bundle, *place)
    assert said.code == BAD_INPUT
    assert "the passphrase does not open" in said.err
    monkeypatch.setenv(access.PASSPHRASE, SECRET)
    done("publish", bundle, *place)
    monkeypatch.delenv(access.PASSPHRASE)
    done("revoke", "tiny-motion@1.0.0", *place, "--passphrase-file", secret)
    done("renew", *place, "--passphrase-file", secret)


def asked_at_a_terminal(arguments: list[object], answers: list[str]) -> tuple[int, str]:
    """Run a command on a terminal of its own and type; returns exit code and all that was shown."""
    lead, follow = pty.openpty()
    # setsid takes the terminal, since a process with threads runs nothing safely after a fork.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command("serinus-convert"), *map(str, arguments)],
        stdin=follow, stdout=follow, stderr=follow,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    os.close(follow)
    shown = b""
    left = list(answers)
    try:
        while data := os.read(lead, 4096):
            shown += data
            if left and shown.rstrip(b" ").endswith(b":"):
                os.write(lead, f"{left.pop(0)}\n".encode())
                shown += b" "
    except OSError:
        pass  # the terminal closes with the process
    os.close(lead)
    return process.wait(60), shown.decode()


def test_at_a_terminal_a_new_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    make = ["root", "keygen", "ada", "--folder", tmp_path / "ada"]
    code, shown = asked_at_a_terminal(make, [SECRET, f"{SECRET}!"])
    assert code == BAD_INPUT
    assert "the two passphrases differ; nothing was made" in shown
    assert not (tmp_path / "ada").exists()
    code, shown = asked_at_a_terminal(make, [SECRET, SECRET])
    assert code == 0, shown
    assert SECRET not in shown
    key = KeyAccess(secret=lambda _what: SECRET.encode())
    opening.signer(tmp_path / "ada" / "ada.pem", key)


def test_keys_that_others_encrypted_more_strongly_are_read(tmp_path: Path, secret: Path) -> None:
    plain = tmp_path / "plain.pem"
    key_file.write_signer(plain, key_file.new_tuf_key(), None)
    for number, options in enumerate(
        (["-scrypt"], ["-v2prf", "hmacWithSHA512", "-iter", "600000"])
    ):
        strong = tmp_path / f"strong-{number}.pem"
        subprocess.run(
            ["openssl", "pkcs8", "-topk8", "-in", plain, "-out", strong, "-passout",
             f"file:{secret}", *options],
            check=True, capture_output=True,
        )  # fmt: skip
        opened = opening.signer(strong, access.of_person(secret))
        assert opened.public_key == opening.signer(plain, KeyAccess()).public_key


def test_a_key_is_never_written_over(tmp_path: Path, secret: Path) -> None:
    make = ("root", "keygen", "ada", "--folder", tmp_path, "--passphrase-file", secret)
    done(*make)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert serinus_convert(*make).code == BAD_INPUT
    (tmp_path / "ada.pub.json").unlink()
    assert serinus_convert(*make).code == BAD_INPUT
    assert (tmp_path / "ada.pem").read_bytes() == before[tmp_path / "ada.pem"]
    done(*make, "--key", tmp_path / "ada.pem")  # as after a kill between the two files
    assert (tmp_path / "ada.pub.json").read_bytes() == before[tmp_path / "ada.pub.json"]


def test_a_disk_that_is_full_leaves_no_half_key(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            key_file.write_signer(tmp_path / "a.pem", key_file.new_tuf_key(), None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def empty(path: Path) -> None:
    path.write_bytes(b"\n")


def endless(path: Path) -> None:
    path.write_bytes(b"x" * 5000)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [empty, endless, gone])
def test_a_file_without_a_passphrase_is_named(secret: Path, spoil: Callable[[Path], None]) -> None:
    spoil(secret)
    with pytest.raises(InvalidConfiguration, match=str(secret)):
        access.of_person(secret)


def test_a_key_file_that_is_none_is_named(tmp_path: Path) -> None:
    large = tmp_path / "large.pem"
    large.write_bytes(b"x" * (key_file.MAX_KEY_BYTES + 1))
    with pytest.raises(InvalidConfiguration, match="has over"):
        opening.signer(large, KeyAccess())
    with pytest.raises(InvalidConfiguration, match="make one with 'serinus-convert root keygen'"):
        opening.signer(tmp_path / "absent.pem", KeyAccess())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pkcs11:object=a", TokenKeyName(object="a")),
        (
            "pkcs11:token=My%20Token;serial=12;manufacturer=m;model=x;object=a;type=private",
            TokenKeyName(token="My Token", serial="12", manufacturer="m", model="x", object="a"),
        ),
        ("pkcs11:id=%01%ff", TokenKeyName(id=b"\x01\xff")),
        (
            "pkcs11:object=%C3%A4?module-path=/usr/lib/a.so&pin-source=file:///run/pin",
            TokenKeyName(object="ä", module_path="/usr/lib/a.so", pin_source="/run/pin"),
        ),
        ("pkcs11:object=a?pin-source=pin", TokenKeyName(object="a", pin_source="pin")),
    ],
)
def test_a_uri_names_a_key(text: str, name: TokenKeyName) -> None:
    assert pkcs11_uri.parse(text) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hsm:2", "is not the URI of a key"),
        ("pkcs11:" + "x" * 3000, "is not the URI of a key"),
        ("pkcs11:", "names no key"),
        ("pkcs11:token=a", "names no key"),
        ("pkcs11:object=a?pin-value=1", "would show the PIN"),
        ("pkcs11:object=a;colour=red", "not understood"),
        ("pkcs11:object=a;object=b", "stands twice"),
        ("pkcs11:object=", "not understood"),
        ("pkcs11:object=a;type=cert", "a private key signs"),
        ("pkcs11:object=a?module-name=x", "not understood"),
    ],
)
def test_another_uri_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        pkcs11_uri.parse(text)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[" * 10_000, b"x" * 20_000,
        b'{"format": "serinus-public-key-2", "holder": "a", "key": {}}',
        b'{"format": "serinus-public-key-1", "holder": "a", "key": {}}',
        b'{"format": "serinus-public-key-1", "holder": "a", "key": {"keytype": "ed25519", "scheme":'
        b' "ed25519", "keyval": {"public": "00"}}}',
        b'{"format": "serinus-public-key-1", "holder": "a", "key": {"keytype": "rsa", "scheme":'
        b' "rsassa-pss-sha256", "keyval": {"public": "00"}}}',
        b'{"format": "serinus-public-key-1", "holder": "a", "key": {"keytype": "ecdsa", "scheme":'
        b' "ecdsa-sha2-nistp256", "keyval": {"public": "-----BEGIN"}}}',
    ],
)  # fmt: skip
def test_a_public_part_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pub.json"
    path.write_bytes(content)
    with pytest.raises(InvalidConfiguration, match="is not a public key to hand over"):
        public_key.read(path)


def test_one_key_has_one_fingerprint_however_it_is_written(tmp_path: Path) -> None:
    done("root", "keygen", "ada", "--folder", tmp_path, "--no-passphrase")
    path = tmp_path / "ada.pub.json"
    found = public_key.read(path)
    value = str(found.keyval["public"])
    path.write_text(path.read_text().replace(value, value.upper()))
    assert public_key.read(path) == found


@pytest.mark.parametrize("name", ["", "Ada", "a/b", "../a", "a b", "x" * 70, "ä"])
def test_a_name_that_could_mislead_is_refused(tmp_path: Path, name: str) -> None:
    said = serinus_convert("root", "keygen", "--folder", tmp_path, "--no-passphrase", "--", name)
    assert said.code == BAD_INPUT
    assert "is not a holder's name" in said.err
    assert list(tmp_path.iterdir()) == []
