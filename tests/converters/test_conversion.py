"""``serinus-convert quantize``: any trained model, without a recipe."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from converters import signing
from converters.conversion import CONVERSION, GOLDEN
from edge_core.bundle import signature
from edge_core.bundle.manifest import SIGNATURE
from tests.converters.corpus import CORPUS, REFUSED, Example
from tests.simulators.processes import command

PROCESSORS = "cpu-x86_64-ort,cpu-x86_64-tflite"
EVERY = f"{PROCESSORS},mcu-tflm,npu-ethos-u55-128"
FACTORY = """
import torch
from torch import nn


def network():
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))


def broken():
    raise RuntimeError("no such luck")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def quantize(
    *arguments: str | Path, cache: Path, limit: str = ""
) -> subprocess.CompletedProcess[str]:
    words = [*command("serinus-convert"), "quantize", *map(str, arguments)]
    if limit:
        words = ["sh", "-c", f'ulimit {limit}; exec "$0" "$@"', *words]
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SERINUS_CACHE": str(cache)},
    )


def exported(folder: Path, example: Example) -> tuple[Path, Path]:
    """A corpus member as people hand it over: a ``.pt2`` and rows."""
    model, rows = folder / "model.pt2", folder / "rows.npz"
    draw = np.random.default_rng(11)
    feeds = {
        spec.name: draw.normal(size=(128, *spec.shape)).astype(np.float32)
        for spec in example.model.inputs
    }
    batch = torch.export.Dim("batch", min=1, max=1024)
    arrays = tuple(torch.from_numpy(array[:16]) for array in feeds.values())
    shapes = tuple({0: batch} for _ in arrays)
    torch.export.save(
        torch.export.export(example.model.module, arrays, dynamic_shapes=shapes), model
    )
    with rows.open("wb") as file:
        np.savez(file, allow_pickle=False, **feeds)  # type: ignore[arg-type]  # names are free
    return model, rows


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Trained weights, rows and the factory that makes the module."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.ReLU(), torch.nn.Linear(24, 3))
    save_file(network.state_dict(), folder / "weights.safetensors")
    (folder / "made.py").write_text(FACTORY)
    rows = np.random.default_rng(5).normal(size=(96, 6)).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    return folder / "weights.safetensors", folder / "rows.npy", f"{folder}/made.py:network"


def test_weights_become_signed_variants_with_evidence(
    weights: tuple[Path, Path, str], cache: Path, tmp_path: Path
) -> None:
    model, rows, factory = weights
    out, key = tmp_path / "out", signing.generate_key(tmp_path / "keys")
    done = quantize(
        *(model, "--calibration", rows, "--factory", factory, "--targets", EVERY),
        *("--out", out, "--key", key),
        cache=cache,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((out / CONVERSION).read_bytes())
    by_target = {variant["target"]: variant for variant in told["variants"]}
    assert list(by_target) == EVERY.split(",")
    for variant in by_target.values():
        assert variant["numeric_error"] <= 0.05
        assert variant["misplaced"] == []
        assert (out / variant["path"]).stat().st_size > 0
    assert told["calibration_rows"] + told["held_out_rows"] == 96
    assert told["calibration_sha256"] != told["held_out_sha256"]
    assert by_target["mcu-tflm"]["estimate"]["arena_bytes"] > 0
    with np.load(out / GOLDEN) as golden:
        assert any(name.startswith("expected.mcu-tflm.") for name in golden.files)
    public = signature.load_public_key(
        (tmp_path / "keys" / signing.PUBLIC_KEY).read_bytes(), "public"
    )
    signed = signature.verify((out / SIGNATURE).read_bytes(), [public])
    paths = {CONVERSION, GOLDEN, *(variant["path"] for variant in by_target.values())}
    assert set(signed.resources) == paths


@pytest.mark.parametrize("name", ["windows", "two-inputs", "two-heads"])
def test_an_exported_program_needs_nothing_else(name: str, cache: Path, tmp_path: Path) -> None:
    model, rows = exported(tmp_path, CORPUS[name]())
    out = tmp_path / "out"
    done = quantize(
        *(model, "--calibration", rows, "--targets", PROCESSORS, "--out", out), cache=cache
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((out / CONVERSION).read_bytes())
    assert all(variant["numeric_error"] <= 0.05 for variant in told["variants"])


def test_a_gate_refuses_and_tells_ci(
    weights: tuple[Path, Path, str], cache: Path, tmp_path: Path
) -> None:
    model, rows, factory = weights
    wanted = (model, "--calibration", rows, "--factory", factory, "--targets", PROCESSORS)
    out, reports = tmp_path / "out", tmp_path / "reports"
    done = quantize(
        *wanted, "--out", out, "--max-error", "0.00001", "--reports", reports, cache=cache
    )
    assert done.returncode == 3
    assert "gate numeric_error of cpu-x86_64-ort" in done.stderr
    assert not out.exists()
    assert json.loads((reports / "gates.json").read_bytes())["passed"] is False
    waived = quantize(
        *(*wanted, "--out", out, "--max-error", "0.00001"),
        *("--waive", "numeric_error=it is a first look"),
        cache=cache,
    )
    assert waived.returncode == 0, waived.stderr
    assert json.loads((out / CONVERSION).read_bytes())["waivers"]


def _nan(rows: np.ndarray) -> np.ndarray:
    rows[7, 2] = np.nan
    return rows


BAD_ROWS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "nan": (_nan, "NaN or infinity"),
    "too few": (lambda rows: rows[:20], "at least"),
    "float64": (lambda rows: rows.astype(np.float64), "float64"),
    "wrong shape": (lambda rows: rows[:, :4], "shape"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_unfit_rows_are_one_clear_line(
    case: str, weights: tuple[Path, Path, str], cache: Path, tmp_path: Path
) -> None:
    model, rows, factory = weights
    change, says = BAD_ROWS[case]
    np.save(tmp_path / "bad.npy", change(np.load(rows)))
    out = tmp_path / "out"
    done = quantize(
        *(model, "--calibration", tmp_path / "bad.npy", "--factory", factory),
        *("--targets", PROCESSORS, "--out", out),
        cache=cache,
    )
    refused_in_one_line(done, 2, says, out)


def refused_in_one_line(
    done: subprocess.CompletedProcess[str], code: int, says: str, out: Path
) -> None:
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}.*"))


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"--targets": "cpu-6502"}, 2, "unknown target cpu-6502"),
        ({"--method": "guess"}, 1, "--method guess"),
        ({"--factory": "nowhere.py:network"}, 2, "nowhere.py"),
        ({"--factory": "FOLDER/made.py:missing"}, 2, "missing"),
        ({"--factory": "FOLDER/made.py:broken"}, 2, "no such luck"),
        ({"--calibration": "nowhere.npy"}, 2, "nowhere.npy"),
        ({"--waive": "numeric_error=short"}, 1, "reason"),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    change: dict[str, str],
    code: int,
    says: str,
    weights: tuple[Path, Path, str],
    cache: Path,
    tmp_path: Path,
) -> None:
    model, rows, factory = weights
    options = {"--calibration": str(rows), "--factory": factory, "--targets": PROCESSORS}
    options |= {name: text.replace("FOLDER", str(model.parent)) for name, text in change.items()}
    words = [word for pair in options.items() for word in pair]
    out = tmp_path / "out"
    refused_in_one_line(quantize(model, *words, "--out", out, cache=cache), code, says, out)


def test_a_pickle_that_needs_code_is_refused_with_the_safe_way(
    weights: tuple[Path, Path, str], cache: Path, tmp_path: Path
) -> None:
    _, rows, factory = weights
    torch.save(torch.nn.Linear(6, 3), tmp_path / "whole.pt")
    out = tmp_path / "out"
    done = quantize(
        *(tmp_path / "whole.pt", "--calibration", rows, "--factory", factory),
        *("--targets", PROCESSORS, "--out", out),
        cache=cache,
    )
    refused_in_one_line(done, 2, "state_dict", out)


def test_an_unsupported_operator_is_named_with_its_module(cache: Path, tmp_path: Path) -> None:
    name = next(name for name in REFUSED if "svd" in name or "operator" in name or "linalg" in name)
    model, rows = exported(tmp_path, REFUSED[name]())
    out = tmp_path / "out"
    done = quantize(
        *(model, "--calibration", rows, "--targets", PROCESSORS, "--out", out), cache=cache
    )
    refused_in_one_line(done, 2, "module", out)


def test_a_killed_conversion_leaves_nothing(
    weights: tuple[Path, Path, str], tmp_path: Path
) -> None:
    model, rows, factory = weights
    out = tmp_path / "out"
    words = ["quantize", str(model), "--calibration", str(rows), "--factory", factory]
    words += ["--targets", EVERY, "--out", str(out), "--cache", str(tmp_path / "cache")]
    running = subprocess.Popen(
        [*command("serinus-convert"), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not out.exists()


def test_a_full_disk_is_one_line(weights: tuple[Path, Path, str], tmp_path: Path) -> None:
    model, rows, factory = weights
    out = tmp_path / "out"
    done = quantize(
        *(model, "--calibration", rows, "--factory", factory),
        *("--targets", PROCESSORS, "--out", out),
        cache=tmp_path / "cache",
        limit="-f 1",
    )
    refused_in_one_line(done, 2, "", out)
