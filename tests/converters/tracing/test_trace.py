"""The chain behind a bundle: whole, with gaps that are named, and broken at each of its links."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from converters import attesting, cli, publishing, signing
from converters.tracing import approved
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle import provenance, signature
from edge_core.bundle.manifest import GateResult, Manifest, Waiver
from edge_core.bundle.provenance import Predicate
from tests.simulators.device import SimulatedFleet, by_version
from tests.simulators.processes import wait_for
from tests.simulators.server import FleetServer
from tests.simulators.tiny_bundle import TARGET, tiny_bundle

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LINKS = [
    "data",
    "features",
    "training",
    "conversion",
    "gates",
    "signed by",
    "approval",
    "rollouts",
]
PLAN = {"stages": [{"kind": "canary", "share": 1.0, "min_seconds": 0.2}]}


def from_a_commit(manifest: Manifest) -> Manifest:
    made = msgspec.structs.replace(manifest.provenance, code_commit=COMMIT, code_dirty=False)
    return msgspec.structs.replace(manifest, provenance=made)


def write(bundle: Path, manifest: Manifest) -> None:
    (bundle / manifests.MANIFEST).write_bytes(manifests.serialize(manifest))


class Fleet:
    """A server that rolled 1.0.0 out, the repository that approves it, and its bundle."""

    def __init__(self, server: FleetServer) -> None:
        self.server = server
        self.private = server.keys / signing.PRIVATE_KEY
        self.key = server.keys / signing.PUBLIC_KEY
        self.bundle = tiny_bundle(server.folder / "bundle")
        write(self.bundle, from_a_commit(folders.read(self.bundle)))
        signing.sign_folder(self.bundle, self.private)
        self.root = server.keys / publishing.PINNED_ROOT
        now = datetime.now(UTC)
        self.ref = publishing.publish(self.bundle, server.repository, server.keys, now)
        wait_for(server.client.releases, seconds=10, what="the release to be listed")

    def roll_out(self) -> str:
        (self.server.folder / "bundles").mkdir(exist_ok=True)
        shutil.copytree(self.bundle, self.server.folder / "bundles" / "1.0.0")
        world = self.server.world("1.0.0", by_version({"1.0.0": 0.8}))
        client = self.server.client
        with SimulatedFleet(2, world, self.server.mqtt_port, interval=0.15):
            wait_for(
                lambda: len(list(client.devices())) == 2, seconds=20, what="the devices to report"
            )
            started = client.start_rollout(self.ref.name, PLAN)
            done = self.server.wait_for_state(started["rollout"], "promoted", seconds=60)
        rollout: str = done["rollout"]
        return rollout

    def options(self, *but: str) -> list[str]:
        options = {
            "--key": self.key,
            "--repository": self.server.repository,
            "--root": self.root,
            "--server": self.server.url,
            "--token-file": self.server.data / "operator.token",
        }
        return [w for name, value in options.items() if name not in but for w in (name, str(value))]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with FleetServer(tmp_path_factory.mktemp("fleet")) as server:
        found = Fleet(server)
        found.roll_out()
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed bundle from a commit, and its private key."""
    folder = tmp_path_factory.mktemp("made")
    private = signing.generate_key(folder / "keys")
    bundle = tiny_bundle(folder / "bundle")
    write(bundle, from_a_commit(folders.read(bundle)))
    signing.sign_folder(bundle, private)
    return bundle, private


@pytest.fixture
def bundle(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(made[0], tmp_path / "bundle")


@pytest.fixture
def private(made: tuple[Path, Path]) -> Path:
    return made[1]


Traced = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def traced(capsys: pytest.CaptureFixture[str]) -> Traced:
    def run(bundle: Path, *options: str) -> tuple[int, dict[str, Any], str]:
        code = cli.run(["trace", str(bundle), "--json", *options])
        said = capsys.readouterr()
        document = json.loads(said.out)
        assert [link["name"] for link in document["links"]] == LINKS
        assert said.err.count("\n") == (1 if code else 0)
        return code, {link["name"]: link for link in document["links"]}, said.err

    return run


def public(private: Path) -> tuple[str, str]:
    return "--key", str(private.with_name(signing.PUBLIC_KEY))


def test_a_whole_chain_is_verified_down_to_its_verdicts(fleet: Fleet, traced: Traced) -> None:
    code, links, said = traced(fleet.bundle, *fleet.options())
    assert (code, said) == (0, "")
    assert {link["state"] for link in links.values()} == {"verified"}
    (rollout,) = fleet.server.client.rollouts()
    facts = {fact["name"]: fact["value"] for fact in links["rollouts"]["facts"]}
    assert facts[rollout["rollout"]].startswith("promoted, started ")
    verdicts = [value for name, value in facts.items() if "verdict" in name]
    assert any(value.startswith("canary: promote") for value in verdicts)
    key = signature.load_public_key(fleet.key.read_bytes())
    assert links["signed by"]["facts"][0]["value"] == signature.key_hint(key)
    assert {"name": "code", "value": COMMIT} in links["training"]["facts"]


def test_the_same_version_of_other_bytes_is_broken_at_approval_and_rollouts(
    fleet: Fleet, traced: Traced, tmp_path: Path
) -> None:
    other = tiny_bundle(tmp_path / "other", seed=5)
    write(other, from_a_commit(folders.read(other)))
    signing.sign_folder(other, fleet.private)
    code, links, said = traced(other, *fleet.options())
    assert code == 1
    assert [name for name in LINKS if links[name]["state"] == "broken"] == ["approval", "rollouts"]
    assert "approved with manifest" in said
    assert "rolled tiny-motion@1.0.0 out with manifest" in said


def test_a_foreign_root_breaks_approval(fleet: Fleet, traced: Traced, tmp_path: Path) -> None:
    publishing.init_repository(tmp_path / "r", tmp_path / "k", datetime.now(UTC))
    options = [*fleet.options("--root"), "--root", str(tmp_path / "k" / publishing.PINNED_ROOT)]
    code, links, said = traced(fleet.bundle, *options)
    assert (code, links["approval"]["state"]) == (1, "broken")
    assert "is not trusted" in said


def test_a_list_that_has_ended_is_not_taken_for_the_present_one(fleet: Fleet) -> None:
    later = datetime.now(UTC) + timedelta(days=1000)
    link = approved.link(fleet.ref, fleet.server.repository, fleet.root, later)
    assert link.state == "unknown"
    assert link.unknown[0].startswith("the list ended on ")


def test_what_was_not_asked_for_is_said_with_what_would_tell(bundle: Path, traced: Traced) -> None:
    code, links, said = traced(bundle)
    assert code == 3
    assert "nothing is broken" in said
    assert {link["state"] for link in links.values()} == {"unknown"}
    assert links["data"]["unknown"] == ["not checked: give --key PUBLIC"]
    assert links["approval"]["unknown"] == ["not asked: give --repository FOLDER --root FILE"]
    assert links["rollouts"]["unknown"] == ["not asked: give --server URL --token-file FILE"]


def test_a_server_that_does_not_answer_leaves_the_chain_incomplete(
    bundle: Path, private: Path, traced: Traced, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t")
    server = ("--server", "http://127.0.0.1:1", "--token-file", str(tmp_path / "token"))
    code, links, _ = traced(bundle, *public(private), *server)
    assert code == 3
    assert "does not answer" in links["rollouts"]["unknown"][0]


def test_an_older_bundle_without_provenance_is_told_apart(tmp_path: Path, traced: Traced) -> None:
    samples = Path(__file__).parents[2] / "compat" / "v1"
    code, links, _ = traced(samples / "bundle", "--key", str(samples / "statement.pub.pem"))
    assert code == 3
    assert "before there was one" in links["signed by"]["unknown"][0]


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def attest(bundle: Path, private: Path, predicate: Predicate, digest: str | None = None) -> None:
    """Sign provenance as somebody would who has the key and something to hide."""
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    payload = provenance.payload(digest or folders.ref(bundle).digest, predicate)
    message = signature.pre_authentication_encoding(payload)
    signed = key.sign(message, ec.ECDSA(hashes.SHA256()))
    data = provenance.envelope(payload, signed, key.public_key())
    (bundle / manifests.PROVENANCE).write_bytes(data)


def told_otherwise(bundle: Path, private: Path, *, name: str) -> None:
    """Provenance that is well signed and names another input or parameter."""
    true = attesting.predicate(folders.read(bundle), folders.ref(bundle).digest)
    definition = true.build_definition
    inputs = [
        msgspec.structs.replace(entry, digest={"sha256": "0" * 64}) if entry.name == name else entry
        for entry in definition.resolved_dependencies
    ]
    external = definition.external_parameters
    changed = msgspec.structs.replace(
        definition,
        resolved_dependencies=inputs,
        external_parameters={**external, name: 99} if name in external else external,
    )
    attest(bundle, private, msgspec.structs.replace(true, build_definition=changed))


def other_data(bundle: Path, private: Path) -> None:
    first = folders.read(bundle).datasets[0]
    told_otherwise(bundle, private, name=f"dataset/{first.role}/{first.name}")


def other_features(bundle: Path, _private: Path) -> None:
    flipped(bundle / manifests.FEATURES)


def other_seed(bundle: Path, private: Path) -> None:
    told_otherwise(bundle, private, name="seed")


def other_model(bundle: Path, _private: Path) -> None:
    flipped(bundle / "variants" / TARGET / "model.onnx")


def failed_gate(bundle: Path, private: Path) -> None:
    failed = GateResult(gate="slice_accuracy", outcome="failed", value=0.5, threshold=0.75)
    manifest = folders.read(bundle)
    write(bundle, msgspec.structs.replace(manifest, gates=[*manifest.gates, failed]))
    signing.sign_folder(bundle, private)


def waived_for_no_reason(bundle: Path, private: Path) -> None:
    failed = GateResult(gate="slice_accuracy", outcome="failed", waived=True)
    manifest = folders.read(bundle)
    write(bundle, msgspec.structs.replace(manifest, gates=[*manifest.gates, failed]))
    signing.sign_folder(bundle, private)


def other_card(bundle: Path, _private: Path) -> None:
    flipped(bundle / manifests.CARD)


def other_builder(bundle: Path, private: Path) -> None:
    true = attesting.predicate(folders.read(bundle), folders.ref(bundle).digest)
    builder = msgspec.structs.replace(true.run_details.builder, id="urn:somebody")
    details = msgspec.structs.replace(true.run_details, builder=builder)
    attest(bundle, private, msgspec.structs.replace(true, run_details=details))


def other_bundles_provenance(bundle: Path, private: Path) -> None:
    true = attesting.predicate(folders.read(bundle), folders.ref(bundle).digest)
    attest(bundle, private, true, digest="0" * 64)


def no_provenance(bundle: Path, _private: Path) -> None:
    (bundle / manifests.PROVENANCE).unlink()


def other_manifest(bundle: Path, _private: Path) -> None:
    manifest = folders.read(bundle)
    write(bundle, msgspec.structs.replace(manifest, description="another"))


def no_signature(bundle: Path, _private: Path) -> None:
    (bundle / manifests.SIGNATURE).unlink()


@pytest.mark.parametrize(
    ("spoil", "link", "words"),
    [
        (other_data, "data", "provenance says something else of dataset/"),
        (other_features, "features", "features.json was altered"),
        (other_seed, "training", "provenance says something else of seed"),
        (other_model, "conversion", "model.onnx was altered"),
        (failed_gate, "gates", "slice_accuracy says failed and is not waived"),
        (waived_for_no_reason, "gates", "slice_accuracy is waived by no reason"),
        (other_card, "signed by", "card.md was altered"),
        (other_builder, "signed by", "of how it was built"),
        (other_bundles_provenance, "signed by", "that of another bundle"),
        (no_provenance, "signed by", "provenance.sig was taken away"),
        (other_manifest, "signed by", "manifest.json is not the one that was signed"),
        (no_signature, "signed by", "model.sig: No such file"),
    ],
)
def test_the_broken_link_is_named(
    bundle: Path,
    private: Path,
    traced: Traced,
    spoil: Callable[[Path, Path], None],
    link: str,
    words: str,
) -> None:
    spoil(bundle, private)
    code, links, said = traced(bundle, *public(private))
    assert code == 1
    assert [name for name in LINKS if links[name]["state"] == "broken"] == [link]
    assert f"broken: {link} (" in said
    assert words in said


def test_a_foreign_key_vouches_for_nothing(bundle: Path, traced: Traced, tmp_path: Path) -> None:
    foreign = signing.generate_key(tmp_path / "foreign")
    code, links, said = traced(bundle, *public(foreign))
    assert code == 1
    assert "none of the 1 trusted keys" in said
    assert not any(link["state"] == "verified" for link in links.values())


def test_changes_that_no_commit_has_are_a_gap(bundle: Path, private: Path, traced: Traced) -> None:
    manifest = folders.read(bundle)
    dirty = msgspec.structs.replace(manifest.provenance, code_dirty=True)
    write(bundle, msgspec.structs.replace(manifest, provenance=dirty))
    signing.sign_folder(bundle, private)
    code, links, _ = traced(bundle, *public(private))
    assert code == 3
    assert links["training"]["unknown"] == ["the recipe had changes that no commit has"]


def test_people_see_a_tree_in_which_no_text_moves_the_cursor(
    bundle: Path, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = folders.read(bundle)
    waiver = Waiver(gate="size", reason="\x1b[2Jall is [bold]well[/bold]")
    write(bundle, msgspec.structs.replace(manifest, waivers=[waiver]))
    signing.sign_folder(bundle, private)
    assert cli.run(["trace", str(bundle), *public(private)]) == 3
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "?[2Jall is [bold]well[/bold]" in shown
    assert folders.ref(bundle).digest in shown.splitlines()[0]
    for name in LINKS:
        assert f"{name}: " in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--server", "http://x"], "--server and --token-file go together"),
        (["--key", "nothing.pem"], "cannot read nothing.pem"),
        (["--repository", "nowhere", "--root", "nothing.json"], "there is no root at nothing.json"),
    ],
)
def test_options_that_name_nothing_are_bad_input(
    bundle: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert cli.run(["trace", str(bundle), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
