"""Keys on a real PKCS#11 token: what they sign is accepted, and nothing of them leaves it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent.repository import TufRepository
from edge_core.bundle import folder as folders
from edge_core.bundle import signature
from fleet_server.repository_refresh import Refresher
from tests.simulators.ceremony import Team, done, fingerprint, served
from tests.simulators.processes import command
from tests.simulators.soft_token import LABEL, SoftToken
from tests.simulators.tiny_bundle import tiny_bundle

BAD_INPUT = 2
CONVERT = command("serinus-convert")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> SoftToken:
    return SoftToken(tmp_path_factory.mktemp("token"))


@pytest.fixture(scope="module")
def keys(token: SoftToken) -> dict[str, str]:
    """Name -> URI."""
    return {
        "releases": token.make("releases", number="01"),
        "cara": token.make("cara", "EC:secp384r1", number="02"),
        "statement": token.make("statement", number="03"),
        "rsa": token.make("rsa", "RSA:2048", number="04"),
    }


def test_a_device_takes_what_a_key_on_a_token_approved(
    token: SoftToken, keys: dict[str, str], team: Team, tmp_path: Path
) -> None:
    place = ["--repository", team.repository]
    pin = ["--passphrase-file", token.pin_file]
    home = tmp_path / "token-public"
    bundle = tiny_bundle(tmp_path / "bundle")
    token.converted(
        ["root", "keygen", "releases-hsm", "--folder", home, "--key", keys["releases"], *pin],
        ["keygen", team.keys, "--key", keys["statement"], *pin],
    )
    assert not list(home.glob("*.pem"))
    assert not (team.keys / "statement.pem").exists()
    team.change_delegation(f"--replace={home / 'releases-hsm.pub.json'}")
    token.run(CONVERT[0], "-c", SIGN, bundle, keys["statement"], token.pin_file)
    key = ["--keys", team.keys, "--key", f"{keys['releases']}?pin-source={token.pin_file}"]
    token.converted(
        ["renew", *place, *key, "--take-over", "1"],
        ["publish", bundle, *place, *key],
    )
    root = (team.keys / "1.root.json").read_bytes()
    _look(team, root)
    with served(team.repository) as url:
        device = TufRepository(url=url, trusted_root=root, folder=tmp_path / "device")
        device.manifest(folders.ref(bundle))
    public = signature.load_public_key((team.keys / "statement.pub.pem").read_bytes())
    signature.verify((bundle / "model.sig").read_bytes(), [public])


SIGN = """
import sys; from pathlib import Path; from converters import signing
from converters.keys import access
opened = signing.open_key(sys.argv[2], access.of_person(Path(sys.argv[3])))
signing.sign_folder(Path(sys.argv[1]), opened)
"""


def _look(team: Team, root: bytes) -> None:
    """What the server does."""
    day = timedelta(days=1)
    refresher = Refresher(team.repository, team.online, root, snapshot_life=day, timestamp_life=day)
    refresher.refresh(datetime.now(UTC))


def test_a_root_holder_signs_with_a_token(
    token: SoftToken, keys: dict[str, str], team: Team, tmp_path: Path
) -> None:
    pin = ["--passphrase-file", token.pin_file]
    home = tmp_path / "token-public"
    token.converted(["root", "keygen", "dan", "--folder", home, "--key", keys["cara"], *pin])
    team.change_root("--remove=root=cara", f"--add=root={home / 'dan.pub.json'}")
    path = team.root_of("--expires-in=100d", signers=("ada",))
    place = ["--repository", team.repository]
    said = token.converted(
        ["root", "sign", path, *place, "--key", keys["cara"], *pin,
         "--fingerprint", fingerprint(path)]
    )  # fmt: skip
    assert "dan has signed" in said
    done("root", "publish", path, *place)


OTHERS = {
    "pkcs11:object=releases;token=elsewhere": "it names none",
    "pkcs11:object=absent": "has 0 such",
    "pkcs11:token={token};object=rsa": "not an EC key",
    "pkcs11:object=releases?module-path=/etc/passwd": "cannot use the PKCS#11 module",
    "pkcs11:object=releases?module-path=/nonexistent.so": "cannot use the PKCS#11 module",
    "pkcs11:object=releases?pin-source=/nonexistent": "cannot read the passphrase file",
}
EACH = """
import sys; from pathlib import Path; from converters import cli
for uri in sys.argv[3:]:
    code = cli.run(["root", "keygen", "x", "--folder", sys.argv[1], "--key", uri,
                    "--passphrase-file", sys.argv[2]])
    assert code == 2, uri
"""


def test_another_key_or_token_is_refused_in_one_line(
    token: SoftToken, keys: dict[str, str], tmp_path: Path
) -> None:
    uris = [uri.format(token=LABEL.replace(" ", "%20")) for uri in OTHERS]
    said = token.run(CONVERT[0], "-c", EACH, tmp_path / "x", token.pin_file, *uris)
    lines = said.stderr.splitlines()
    assert len(lines) == len(OTHERS)
    for line, words in zip(lines, OTHERS.values(), strict=True):
        assert words in line
    assert not (tmp_path / "x").exists()


BOTH = """
import sys; from pathlib import Path
from converters import signing; from converters.keys import access, opening
given = access.of_person(Path(sys.argv[1]))
releases, statement = opening.signer(sys.argv[2], given), signing.open_key(sys.argv[3], given)
releases.public_key.verify_signature(releases.sign(b"x"), b"x")
print(len(statement.sign(b"x")))
"""


def test_two_keys_on_one_token_are_open_at_once(token: SoftToken, keys: dict[str, str]) -> None:
    """As the worker has them, which builds and publishes."""
    two = (keys["releases"], keys["statement"])
    said = token.run(CONVERT[0], "-c", BOTH, token.pin_file, *two)
    assert int(said.stdout) > 64


def test_a_wrong_pin_is_tried_once_only(
    token: SoftToken, keys: dict[str, str], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("161803")
    said = token.tried(*CONVERT, "root", "keygen", "x", "--folder", tmp_path / "x",
                       "--key", keys["releases"], "--passphrase-file", wrong)  # fmt: skip
    assert said.returncode == BAD_INPUT
    assert "it was tried once" in said.stderr


def test_without_a_pin_or_a_module_the_setting_is_named(
    token: SoftToken, keys: dict[str, str], tmp_path: Path
) -> None:
    said = token.tried(*CONVERT, "root", "keygen", "x", "--folder", tmp_path / "x",
                       "--key", keys["releases"])  # fmt: skip
    assert "no PIN for pkcs11:" in said.stderr
    del token.environment["SERINUS_PKCS11_MODULE"]
    try:
        said = token.tried(*CONVERT, "root", "keygen", "x", "--folder", tmp_path / "x",
                           "--key", "pkcs11:object=releases")  # fmt: skip
    finally:
        token.environment["SERINUS_PKCS11_MODULE"] = token.module
    assert said.returncode == BAD_INPUT
    assert "set SERINUS_PKCS11_MODULE" in said.stderr
