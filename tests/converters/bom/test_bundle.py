"""The bill of a bundle: the manifest's, valid by the public schema, the same every time."""

import json
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from converters import cli, signing
from converters.bom import bundle as bundle_bom
from converters.bom import document
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Waiver
from tests.converters.bom.schema import check
from tests.simulators.tiny_bundle import CLASSES, TARGET, tiny_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed bundle and its public key."""
    folder = tmp_path_factory.mktemp("made")
    private = signing.generate_key(folder / "keys")
    bundle = tiny_bundle(folder / "bundle", sign_with=private)
    return bundle, private.with_name(signing.PUBLIC_KEY)


def test_the_bill_holds_what_the_manifest_says(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, key = made
    assert cli.run(["sbom", str(bundle), "--key", str(key)]) == 0
    bill = json.loads(capsys.readouterr().out)
    check(bill)
    manifest, ref = folders.read(bundle), folders.ref(bundle)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    model = bill["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert (model["name"], model["version"]) == (manifest.model, manifest.version)
    assert model["hashes"] == [{"alg": "SHA-256", "content": ref.digest}]
    digests = {part["name"]: part["hashes"] for part in bill["components"] if "hashes" in part}
    for entry in manifest.files:
        assert digests[entry.path] == [{"alg": "SHA-256", "content": entry.sha256}]
    card = model["modelCard"]
    data = {part["bom-ref"]: part for part in bill["components"] if part["type"] == "data"}
    used = [data[entry["ref"]] for entry in card["modelParameters"]["datasets"]]
    assert [part["hashes"][0]["content"] for part in used] == [d.sha256 for d in manifest.datasets]
    figures = card["quantitativeAnalysis"]["performanceMetrics"]
    left = {"type": "accuracy", "value": "1.0", "slice": "side=left"}
    assert left in figures
    assert all(name in card["modelParameters"]["outputs"][0]["format"] for name in CLASSES)
    assert any(TARGET in text for text in card["considerations"]["performanceTradeoffs"])
    tools = {part["name"]: part for part in bill["components"] if part.get("scope") == "excluded"}
    assert tools["numpy"]["version"] == manifest.provenance.tools["numpy"]


def test_the_same_bundle_gives_the_same_bytes_and_another_another_serial_number(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, ref = folders.read(made[0]), folders.ref(made[0])
    first = bundle_bom.of_bundle(manifest, ref)
    assert document.as_bytes(first) == document.as_bytes(bundle_bom.of_bundle(manifest, ref))
    other = tiny_bundle(tmp_path / "other", seed=3)
    second = bundle_bom.of_bundle(folders.read(other), folders.ref(other))
    assert first["serialNumber"] != second["serialNumber"]


def test_waivers_are_limitations(made: tuple[Path, Path]) -> None:
    waiver = Waiver(gate="slice_accuracy", slice="side=left", reason="few rows, known")
    manifest = msgspec.structs.replace(folders.read(made[0]), waivers=[waiver])
    bill = bundle_bom.of_bundle(manifest, folders.ref(made[0]))
    check(bill)
    told = bill["metadata"]["component"]["modelCard"]["considerations"]["technicalLimitations"]
    assert told == ["gate slice_accuracy of side=left was waived: few rows, known"]


def test_bundles_of_earlier_versions_have_valid_bills() -> None:
    samples = Path(__file__).parents[2] / "compat"
    for path in (samples / "v1" / "bundle", *(samples / f"v{n}" for n in (3, 4))):
        manifest = manifests.parse((path / manifests.MANIFEST).read_bytes())
        check(bundle_bom.of_bundle(manifest, folders.ref(path)))


def test_the_schema_would_refuse_a_card_with_anything_else(made: tuple[Path, Path]) -> None:
    bill = bundle_bom.of_bundle(folders.read(made[0]), folders.ref(made[0]))
    bill["metadata"]["component"]["modelCard"]["accuracy"] = 1.0
    with pytest.raises(jsonschema_rs.ValidationError):
        check(bill)


def test_a_file_is_written_once_and_a_foreign_bundle_has_no_bill(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, key = made
    out = tmp_path / "bundle.cdx.json"
    assert cli.run(["sbom", str(bundle), "--out", str(out)]) == 0
    check(json.loads(out.read_bytes()))
    assert cli.run(["sbom", str(bundle), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    foreign = tiny_bundle(tmp_path / "foreign", sign_with=signing.generate_key(tmp_path / "keys"))
    missing = tmp_path / "none.cdx.json"
    code = cli.run(["sbom", str(foreign), "--key", str(key), "--out", str(missing)])
    assert (code, missing.exists()) == (2, False)
    assert "none of the 1 trusted keys" in capsys.readouterr().err
