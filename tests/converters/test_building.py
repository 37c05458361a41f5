"""Whole builds of the watch model, as a model builder would run them."""

import json
import subprocess
from pathlib import Path

import pytest

from converters import building, checking, signing
from converters.refusal import RefusedByGate, WrongUse
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidBundle, InvalidConfiguration, UntrustedBundle
from tests.simulators.processes import command

RECIPE = Path(__file__).parent.parent.parent / "firmware_bundles" / "watch_activity"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command("serinus-convert"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed bundle and its public key."""
    folder = tmp_path_factory.mktemp("build")
    key = signing.generate_key(folder / "keys")
    done = run("build", RECIPE, "--release", "1.1.0", "--out", folder / "bundle", "--key", key)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bundle", folder / "keys" / signing.PUBLIC_KEY


def test_a_bundle_proves_what_it_claims(built: tuple[Path, Path]) -> None:
    bundle, key = built
    assert len(checking.verify(bundle, key)) == 3
    manifest = folders.read(bundle)
    assert {variant.target for variant in manifest.variants} == {
        "cpu-x86_64-ort",
        "cpu-x86_64-tflite",
    }
    for variant in manifest.variants:
        assert variant.numeric_error <= 0.05
        assert variant.size_ratio < 1
    assert all(gate.outcome == "passed" for gate in manifest.gates)
    roles = {record.role: set(record.entities) for record in manifest.datasets}
    assert not any("subject 6" in entity for group in roles.values() for entity in group)
    assert not roles["train"] & roles["test"]


def test_the_models_hold_no_path_of_the_machine(built: tuple[Path, Path]) -> None:
    bundle, _ = built
    for path in bundle.rglob("*"):
        if path.is_file():
            assert str(Path.cwd()).encode() not in path.read_bytes(), path.name


def test_the_same_release_gives_the_same_bytes_again(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle, _ = built
    done = run("build", RECIPE, "--release", "1.1.0", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    first, second = (
        json.loads((b / "manifest.json").read_bytes()) for b in (bundle, tmp_path / "again")
    )
    for files in (first["files"], second["files"]):
        # The card shows measured latency.
        files[:] = [entry for entry in files if entry["path"] != "card.md"]
    assert first["files"] == second["files"]


def test_an_altered_byte_and_a_foreign_key_are_refused(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle, key = built
    foreign = signing.generate_key(tmp_path / "foreign").parent / signing.PUBLIC_KEY
    with pytest.raises(UntrustedBundle, match="none of"):
        checking.verify(bundle, foreign)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", bundle, copy], check=True)
    model = copy / "variants" / "cpu-x86_64-ort" / "model.onnx"
    data = bytearray(model.read_bytes())
    data[100] ^= 1
    model.write_bytes(bytes(data))
    with pytest.raises(InvalidBundle, match=r"model\.onnx was altered"):
        checking.verify(copy, key)


def test_a_slice_without_evidence_refuses_until_it_is_waived(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    refused = run("build", RECIPE, "--release", "1.2.0", "--out", out)
    assert refused.returncode == RefusedByGate.exit_code
    assert "side=left has no evidence" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []
    waiver = "metric_drop:side=left=only right wrists could be recorded"
    assert (
        run("build", RECIPE, "--release", "1.2.0", "--out", out, "--waive", waiver).returncode == 0
    )
    manifest = folders.read(out)
    assert [waiver.slice for waiver in manifest.waivers] == ["side=left"]
    assert any(gate.waived for gate in manifest.gates)


@pytest.mark.parametrize(
    ("change", "error", "names"),
    [
        ({"release": "9.9.9"}, InvalidConfiguration, "9.9.9"),
        ({"recipe": Path("nowhere")}, InvalidConfiguration, "nowhere"),
        ({"waive": ("metric_drop=short",)}, WrongUse, "reason"),
        ({"out": Path()}, WrongUse, "exists already"),
    ],
)
def test_wrong_use_is_one_clear_line(
    tmp_path: Path, change: dict[str, object], error: type[Exception], names: str
) -> None:
    asked = {"recipe": RECIPE, "out": tmp_path / "bundle"} | change
    with pytest.raises(error, match=names) as refused:
        building.build(building.BuildRequest(**asked), report=None)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
