"""Bundles are signed so that the public tools agree, and the private key stays where it is."""

import base64
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from converters import signing
from edge_core.bundle import folder as folders
from edge_core.bundle import signature, trust
from edge_core.bundle.manifest import MANIFEST, PROVENANCE, SIGNATURE, Manifest
from edge_core.errors import InvalidBundle, InvalidConfiguration, UntrustedBundle
from tests.simulators.tiny_bundle import tiny_bundle

MODEL = "variants/cpu-x86_64-ort/model.onnx"


class Signed:
    """A signed bundle and its keys, judged by the public command and by ours."""

    def __init__(self, folder: Path, command: Path) -> None:
        self._command = command
        self.private = signing.generate_key(folder / "keys")
        self.public = folder / "keys" / signing.PUBLIC_KEY
        self.bundle = tiny_bundle(folder / "bundle", sign_with=self.private)

    def verify(self, *, key: Path | None = None) -> "subprocess.CompletedProcess[str]":
        return self._public("verify", "--public_key", str(key or self.public))

    def sign_in_public(self, *options: str) -> None:
        """As somebody does who knows nothing of provenance."""
        (self.bundle / SIGNATURE).unlink()
        (self.bundle / PROVENANCE).unlink()
        done = self._public("sign", "--private_key", str(self.private), *options)
        assert done.returncode == 0, done.stderr

    def accept(self) -> Manifest:
        """What a device does with a side-loaded bundle."""
        accepted = trust.accept(
            (self.bundle / MANIFEST).read_bytes(),
            (self.bundle / SIGNATURE).read_bytes(),
            folders.read_provenance(self.bundle),
            [signature.load_public_key(self.public.read_bytes())],
        )
        folders.check(self.bundle, accepted)
        return accepted

    def _public(self, verb: str, *options: str) -> "subprocess.CompletedProcess[str]":
        files = (str(self.bundle), "--signature", str(self.bundle / SIGNATURE))
        return subprocess.run(
            [str(self._command), verb, "key", *files, *options],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.bundle.parent,
        )


@pytest.fixture
def signed(tmp_path: Path, model_signing: Path) -> Signed:
    return Signed(tmp_path, model_signing)


def test_the_public_verifier_accepts_our_signature(signed: Signed) -> None:
    done = signed.verify()
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr


def altered(signed: Signed) -> None:
    data = bytearray((signed.bundle / MODEL).read_bytes())
    data[-1] ^= 1
    (signed.bundle / MODEL).write_bytes(data)


def another_manifest(signed: Signed) -> None:
    path = signed.bundle / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"1.0.0", b"1.0.1", 1))


def added(signed: Signed) -> None:
    (signed.bundle / "extra.py").write_text("print()")


def removed(signed: Signed) -> None:
    (signed.bundle / "card.md").unlink()


def another_statement(signed: Signed) -> None:
    document = json.loads((signed.bundle / SIGNATURE).read_bytes())
    payload = base64.b64decode(document["dsseEnvelope"]["payload"])
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload + b" ").decode()
    (signed.bundle / SIGNATURE).write_text(json.dumps(document))


@pytest.mark.parametrize("spoil", [altered, another_manifest, added, removed, another_statement])
def test_both_verifiers_refuse_what_was_not_signed(
    signed: Signed, spoil: Callable[[Signed], None]
) -> None:
    signed.accept()
    spoil(signed)
    done = signed.verify()
    assert done.returncode != 0
    assert "Verification failed" in done.stdout + done.stderr
    with pytest.raises((InvalidBundle, UntrustedBundle)):
        signed.accept()


def test_the_public_verifier_refuses_a_foreign_key(signed: Signed, tmp_path: Path) -> None:
    foreign = signing.generate_key(tmp_path / "foreign").with_name(signing.PUBLIC_KEY)
    done = signed.verify(key=foreign)
    assert done.returncode != 0
    assert "Key mismatch" in done.stdout + done.stderr


def test_we_accept_what_the_public_signer_made(signed: Signed) -> None:
    signed.sign_in_public()
    assert signed.accept().model == "tiny-motion"


def test_we_refuse_a_file_that_the_public_signer_left_out(signed: Signed) -> None:
    signed.sign_in_public("--ignore-paths", str(signed.bundle / "card.md"))
    with pytest.raises(UntrustedBundle, match=r"disagree about card\.md"):
        signed.accept()


def test_we_refuse_a_public_signature_that_followed_links(signed: Signed) -> None:
    signed.sign_in_public("--allow_symlinks")
    with pytest.raises(UntrustedBundle, match="allow_symlinks"):
        signed.accept()


def test_a_bundle_that_is_not_whole_is_not_signed(tmp_path: Path) -> None:
    private = signing.generate_key(tmp_path / "keys")
    bundle = tiny_bundle(tmp_path / "bundle")
    (bundle / "card.md").write_text("# another\n")
    with pytest.raises(InvalidBundle, match=r"card\.md"):
        signing.sign_folder(bundle, private)
    assert not (bundle / SIGNATURE).exists()


def test_signing_again_replaces_the_signature(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", sign_with=signing.generate_key(tmp_path / "old"))
    private = signing.generate_key(tmp_path / "new")
    signing.sign_folder(bundle, private)
    key = signature.load_public_key(private.with_name(signing.PUBLIC_KEY).read_bytes())
    statement = signature.verify((bundle / SIGNATURE).read_bytes(), [key])
    assert statement.name == "tiny-motion-1.0.0"


def test_the_private_key_is_never_in_the_bundle(tmp_path: Path) -> None:
    private = signing.generate_key(tmp_path / "keys")
    bundle = tiny_bundle(tmp_path / "bundle", sign_with=private)
    key = signing.load_private_key(private)
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    pem = private.read_bytes()
    payload = json.loads((bundle / SIGNATURE).read_bytes())["dsseEnvelope"]["payload"]
    files = [path.read_bytes() for path in bundle.rglob("*") if path.is_file()]
    for data in (*files, base64.b64decode(payload)):
        assert secret not in data
        assert secret.hex().encode() not in data
        assert not any(line in data for line in pem.splitlines())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_read_the_private_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private = signing.generate_key(tmp_path / "new" / "keys")
    finally:
        os.umask(before)
    assert mode(private) == 0o600
    assert mode(private.parent) == 0o700
    public = private.with_name(signing.PUBLIC_KEY)
    pair = signing.load_private_key(private).public_key()
    assert signature.load_public_key(public.read_bytes()) == pair
    assert sorted(path.name for path in private.parent.iterdir()) == sorted(
        (signing.PRIVATE_KEY, signing.PUBLIC_KEY)
    )


@pytest.mark.parametrize("name", [signing.PRIVATE_KEY, signing.PUBLIC_KEY])
def test_a_key_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(InvalidConfiguration, match=f"{name} exists already"):
        signing.generate_key(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"mine"}


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


ENCRYPTED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(b"secret"),
)
PUBLIC = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)


NO_KEY = "not a private key in PEM form"
OTHER_KEY = "not an EC P-256 key"
OTHER_KEYS = {
    "nothing": (b"", NO_KEY),
    "no text": (b"\xff\x00", NO_KEY),
    "encrypted": (ENCRYPTED, "encrypted: name a file that holds its passphrase"),
    "public": (PUBLIC, NO_KEY),
    "P-384": (pem(ec.generate_private_key(ec.SECP384R1())), OTHER_KEY),
    "secp256k1": (pem(ec.generate_private_key(ec.SECP256K1())), OTHER_KEY),
    "Ed25519": (pem(ed25519.Ed25519PrivateKey.generate()), OTHER_KEY),
    "RSA": (pem(rsa.generate_private_key(65537, 2048)), OTHER_KEY),
}


@pytest.mark.parametrize(("data", "words"), OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_another_kind_of_key_is_refused_and_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "some.pem"
    path.write_bytes(data)
    with pytest.raises(InvalidConfiguration, match=f"some.pem is {words}"):
        signing.load_private_key(path)


def test_a_key_that_cannot_be_read_is_refused_and_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pem", tmp_path):
        with pytest.raises(InvalidConfiguration, match=f"cannot read the key {path}"):
            signing.load_private_key(path)


def test_a_key_in_the_older_pem_form_is_read(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "old.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    assert signing.load_private_key(path).private_numbers() == key.private_numbers()
