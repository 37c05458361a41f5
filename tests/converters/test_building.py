"""Whole builds, as a model builder would run them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from converters import building, checking, recipe, signing
from converters.pipeline import Quiet
from converters.refusal import RefusedByGate, WrongUse
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidBundle, InvalidConfiguration, UntrustedBundle
from tests.simulators.processes import command

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "firmware_bundles" / "watch_activity"
PROCESSORS = "cpu-x86_64-ort,cpu-x86_64-tflite"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages that this file's builds share."""
    return tmp_path_factory.mktemp("cache")


def run(*arguments: str | Path, cache: Path, limit: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command; ``limit`` is a shell's ulimit."""
    words = [*command("serinus-convert"), *map(str, arguments)]
    if limit:
        words = ["sh", "-c", f'ulimit {limit}; exec "$0" "$@"', *words]
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SERINUS_CACHE": str(cache)},
    )


@pytest.fixture(scope="module")
def built(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed bundle for every target that the recipe names and that runs here, and its key."""
    folder = tmp_path_factory.mktemp("build")
    key = signing.generate_key(folder / "keys")
    targets = [t for t in recipe.load(RECIPE, "1.1.0").targets if "aarch64" not in t]
    done = run(
        *("build", RECIPE, "--release", "1.1.0", "--out", folder / "bundle", "--key", key),
        *("--targets", ",".join(targets)),
        cache=cache,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bundle", folder / "keys" / signing.PUBLIC_KEY


def test_a_bundle_proves_what_it_claims(built: tuple[Path, Path]) -> None:
    bundle, key = built
    manifest = folders.read(bundle)
    assert len(checking.verify(bundle, key)) == 2 + len(manifest.variants)
    by_target = {variant.target: variant for variant in manifest.variants}
    assert {"cpu-x86_64-ort", "cpu-x86_64-tflite", "mcu-tflm"} <= set(by_target)
    for variant in manifest.variants:
        assert variant.numeric_error is not None
        assert variant.numeric_error <= 0.05
        assert variant.size_ratio < 1
        assert variant.misplaced == []
        assert variant.layer_errors
        assert variant.metrics["accuracy"] > 0.7
    assert all(gate.outcome == "passed" for gate in manifest.gates)
    roles = {record.role: set(record.entities) for record in manifest.datasets}
    assert not any("subject 6" in entity for group in roles.values() for entity in group)
    assert not roles["train"] & roles["test"]


def test_what_was_measured_simulated_and_estimated_is_kept_apart(
    built: tuple[Path, Path],
) -> None:
    by_target = {variant.target: variant for variant in folders.read(built[0]).variants}
    processor, micro = by_target["cpu-x86_64-ort"], by_target["mcu-tflm"]
    assert processor.ran_on_hardware
    assert set(processor.latency_us) == {"1", "16", "64"}
    assert not micro.ran_on_hardware
    assert micro.latency_us == {}
    assert 0 < micro.estimate["arena_bytes"] <= 65536
    assert micro.scaling is not None
    npu = by_target["npu-ethos-u55-128"]
    assert npu.estimate["cycles"] > 0
    assert "before compilation" in npu.measured_on
    assert all(place.startswith("NPU/") for place in npu.placement)


def test_the_models_hold_no_path_of_the_machine(built: tuple[Path, Path]) -> None:
    bundle, _ = built
    for path in bundle.rglob("*"):
        if path.is_file():
            assert str(Path.cwd()).encode() not in path.read_bytes(), path.name


def test_a_release_reproduces_to_the_byte(built: tuple[Path, Path], tmp_path: Path) -> None:
    done = run("reproduce", built[0], "--recipe", RECIPE, cache=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model.onnx" in done.stdout
    # The answers of the processor's own kernels are part of golden.npz, so every file counts.
    counted = [line for line in done.stdout.splitlines() if "identical to the byte" in line]
    same, _, total = counted[0].split(": ")[1].split(" ")[:3]
    assert same == total, done.stdout


def test_another_recipe_does_not_reproduce_it(built: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "watch_activity"
    subprocess.run(["cp", "-r", RECIPE, copy], check=True)
    text = (copy / "recipe.toml").read_text()
    (copy / "recipe.toml").write_text(text.replace("epochs = 25", "epochs = 26"))
    done = run("reproduce", built[0], "--recipe", copy, cache=tmp_path)
    assert done.returncode == RefusedByGate.exit_code
    assert "the recipe has changed since" in done.stdout
    assert "does not reproduce" in done.stderr


def test_a_second_build_takes_everything_from_the_cache(
    built: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    arguments = ("build", RECIPE, "--release", "1.1.0", "--out", out, "--targets", PROCESSORS)
    done = run(*arguments, cache=cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("from cache") == 4  # training, float answers, two targets
    again = {entry.path: entry.sha256 for entry in folders.read(out).files}
    first = {entry.path: entry.sha256 for entry in folders.read(built[0]).files}
    shared = [path for path in again if path.startswith("variants/")]
    assert len(shared) == 2
    assert all(again[path] == first[path] for path in shared)


def test_two_bundles_side_by_side(built: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "old"
    done = run(
        *("build", RECIPE, "--release", "1.0.0", "--out", out, "--targets", PROCESSORS),
        cache=cache,
    )
    assert done.returncode == 0, done.stderr
    shown = run("compare", out, built[0], cache=cache)
    assert shown.returncode == 0
    assert "!=" in shown.stdout
    data = json.loads(run("compare", out, built[0], "--json", cache=cache).stdout)
    assert (data["a"], data["b"]) == ("watch-activity@1.0.0", "watch-activity@1.1.0")


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


def test_a_slice_without_evidence_refuses_until_it_is_waived(cache: Path, tmp_path: Path) -> None:
    out, reports = tmp_path / "bundle", tmp_path / "reports"
    wanted = ("build", RECIPE, "--release", "1.2.0", "--targets", PROCESSORS, "--out", out)
    refused = run(*wanted, "--reports", reports, cache=cache)
    assert refused.returncode == RefusedByGate.exit_code
    assert "side=left has no evidence" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == [reports]
    told = json.loads((reports / "gates.json").read_bytes())
    assert (told["passed"], told["exit_code"]) == (False, RefusedByGate.exit_code)
    assert "no evidence" in (reports / "junit.xml").read_text()
    waiver = "metric_drop:side=left=only right wrists could be recorded"
    assert run(*wanted, "--waive", waiver, cache=cache).returncode == 0
    manifest = folders.read(out)
    assert [waiver.slice for waiver in manifest.waivers] == ["side=left"]
    assert any(gate.waived for gate in manifest.gates)


def test_no_worse_than_the_parent_on_the_same_rows(
    built: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    wanted = ("build", RECIPE, "--release", "1.0.0", "--targets", PROCESSORS)
    refused = run(*wanted, "--out", tmp_path / "worse", "--parent", built[0], cache=cache)
    assert refused.returncode == RefusedByGate.exit_code
    assert "gate below_parent" in refused.stderr


def test_a_killed_build_leaves_nothing_at_its_place(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    building_ = subprocess.Popen(
        [
            *(*command("serinus-convert"), "build", str(RECIPE), "--release", "1.1.0"),
            *("--out", str(out), "--targets", PROCESSORS, "--cache", str(tmp_path / "cache")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".bundle.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)
    os.killpg(building_.pid, signal.SIGKILL)
    building_.wait()
    assert not out.exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    wanted = ("build", RECIPE, "--release", "1.1.0", "--targets", PROCESSORS, "--out", out)
    done = run(*wanted, cache=tmp_path / "cache", limit="-f 16")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "error", "names"),
    [
        ({"release": "9.9.9"}, InvalidConfiguration, "9.9.9"),
        ({"recipe": Path("nowhere")}, InvalidConfiguration, "nowhere"),
        ({"waive": ("metric_drop=short",)}, WrongUse, "reason"),
        ({"out": Path()}, WrongUse, "exists already"),
        ({"targets": ("cpu-6502",)}, InvalidConfiguration, "unknown target cpu-6502"),
    ],
)
def test_wrong_use_is_one_clear_line(
    tmp_path: Path, change: dict[str, object], error: type[Exception], names: str
) -> None:
    asked = {"recipe": RECIPE, "out": tmp_path / "bundle"} | change
    with pytest.raises(error, match=names) as refused:
        building.build(building.BuildRequest(**asked), Quiet())  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_a_release_teaches_the_next_one(
    built: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "watch_activity"
    subprocess.run(["cp", "-r", RECIPE, folder], check=True)
    (folder / "releases" / "1.3.0.toml").write_text(
        'description = "Learned from 1.1.0."\n'
        "[settings]\nepochs = 5\n"
        '[distillation]\nteacher = "release"\nepochs = 15\nhard_weight = 0.3\n'
    )
    wanted = ("build", folder, "--release", "1.3.0", "--targets", PROCESSORS)
    missing = run(*wanted, "--out", tmp_path / "none", cache=cache)
    assert missing.returncode == WrongUse.exit_code
    assert "--teacher" in missing.stderr
    done = run(*wanted, "--out", tmp_path / "out", "--teacher", built[0], cache=cache)
    assert done.returncode == 0, done.stderr
    teacher = folders.read(tmp_path / "out").teacher
    assert teacher is not None
    assert teacher.digest == folders.ref(built[0]).digest
    assert teacher.metrics["accuracy"] == folders.read(built[0]).metrics["accuracy"]
    other = run(
        *("build", folder, "--release", "1.1.0", "--targets", PROCESSORS),
        *("--out", tmp_path / "odd", "--teacher", built[0]),
        cache=cache,
    )
    assert other.returncode == WrongUse.exit_code
