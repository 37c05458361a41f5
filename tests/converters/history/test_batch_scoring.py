"""Scores of a log: what an agent answers to the same windows, and which release said so."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from converters import signing
from converters.cli import app
from converters.data import event_log, log_folder
from converters.data.log_folder import LogFolder
from converters.history import batch_scoring, feature_rows
from converters.history.parts import Done
from edge_agent.monitor import Monitor
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_core import baseline, outputs
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.errors import InvalidBundle, InvalidInput, Unavailable, UntrustedBundle
from edge_core.features import columns
from edge_core.features import definition as definitions
from edge_core.features.logs import Log
from edge_core.features.request_evaluation import RequestEvaluator
from tests.simulators import history, tiny_bundle, tiny_requests
from tests.simulators.tiny_bundle import CLASSES, DEFINITION, TARGET

from .test_backfill import ROOT, Unseen, bytes_of, rows

PART_ROWS = 256
ANSWER = ["label", "confidence", *(f"probability={name}" for name in CLASSES), "served_by"]
RELEASE = ["model", "version", "digest", "target"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    key = signing.generate_key(folder)
    made = tiny_bundle.tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", sign_with=key)
    (made.parent / "key.pub.pem").write_bytes((folder / signing.PUBLIC_KEY).read_bytes())
    return made


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = history.write_samples(tmp_path_factory.mktemp("log") / "samples.parquet", 6000)
    table = parquet.read_table(path)
    filled = np.nan_to_num(table.column("ax").to_numpy())
    parquet.write_table(table.set_column(2, "ax", pa.array(filled)), path)
    return path


def score(bundle: Path, log: Path, output: Path, **more: Any) -> Done:
    given = {"part_rows": PART_ROWS, **more}
    request = batch_scoring.Request(bundle=bundle, log=log, output=output, **given)
    return batch_scoring.run(request, Unseen())


def changed(bundle: Path, folder: Path, files: dict[str, bytes], **facts: Any) -> Path:
    """The same bundle with other files, and a manifest that lists them."""
    manifest = folders.read(bundle)
    content = {entry.path: (bundle / entry.path).read_bytes() for entry in manifest.files} | files
    entries = []
    for path, data in sorted(content.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(manifests.FileEntry(path=path, size=len(data), sha256=digest))
    manifest = msgspec.structs.replace(manifest, files=entries, **facts)
    (folder / manifests.MANIFEST).write_bytes(manifests.serialize(manifest))
    return folder


async def answers(bundle: Path, log: Path) -> dict[tuple[str, int], Any]:
    """What an agent answers that is pushed the log, a second of each stream at a time."""
    release = LoadedRelease.open(bundle, TARGET)
    monitor = Monitor(device="d", sample_every=100, now_ms=0)
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: 0)
    engine.set_active(release, "incumbent", None)
    events = event_log.read(log, DEFINITION.inputs)
    found = {}
    names = np.array(events.streams)
    for name in dict.fromkeys(events.streams):
        mine = np.flatnonzero(names == name)
        for start in range(0, len(mine), 50):
            part = mine[start : start + 50]
            for one in await engine.push(name, events.times_us[part], events.samples[part]):
                found[name, one.last_us] = one
    await engine.close()
    return found


def test_rows_are_the_agents_answers(bundle: Path, log: Path, tmp_path: Path) -> None:
    done = score(bundle, log, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert found.column_names == ["stream", "first_us", "last_us", *ANSWER, *RELEASE]
    release = LoadedRelease.open(bundle, TARGET)
    windows = feature_rows.WindowRows(log, DEFINITION)
    features = np.concatenate(
        [feature_rows.matrix(step.rows, "features") for step in windows.steps()]
    )
    scores = outputs.probabilities(release.logits(np.empty(0, np.float32), features))
    mine = [found.column(f"probability={name}").to_numpy() for name in CLASSES]
    assert np.stack(mine, axis=1).tobytes() == scores.tobytes()
    assert found.column("confidence").to_numpy().tobytes() == scores.max(axis=1).tobytes()
    ref = folders.ref(bundle)
    for name, value in zip(RELEASE, (ref.model, ref.version, ref.digest, TARGET), strict=True):
        assert set(found.column(name).to_pylist()) == {value}
    assert done.totals["served_by"] == {"model": done.rows, "fallback": 0}
    assert done.rows == len(features) > 4 * PART_ROWS


def _huge(bundle: Path, folder: Path) -> Path:
    """A bundle whose scores overflow where there is much motion."""
    model = tiny_bundle.one_gemm(tiny_bundle.WEIGHTS * np.float32(2e37), tiny_bundle.BIAS)
    return changed(bundle, folder, {f"variants/{TARGET}/model.onnx": model})


def test_the_fallback_answers_where_the_model_does_not(
    bundle: Path, log: Path, tmp_path: Path
) -> None:
    broken = _huge(bundle, tmp_path / "bundle")
    table = parquet.read_table(log)
    place = table.schema.get_field_index("ax")
    loud = np.where(np.arange(6000) > 4000, 8.0, 0.0) * np.sign(table.column("ax").to_numpy())
    table = table.set_column(place, "ax", pa.array(loud.astype(np.float32)))
    parquet.write_table(table, tmp_path / "log.parquet")
    done = score(broken, tmp_path / "log.parquet", tmp_path / "out")
    served = done.totals["served_by"]
    assert min(served.values()) > 100
    found = rows(tmp_path / "out")
    release = LoadedRelease.open(broken, TARGET)
    windows = feature_rows.WindowRows(tmp_path / "log.parquet", DEFINITION)
    features = np.concatenate(
        [feature_rows.matrix(step.rows, "features") for step in windows.steps()]
    )
    there = np.array(found.column("served_by").to_pylist()) == "model"
    assert int(there.sum()) == served["model"]
    mine = np.stack([found.column(f"probability={n}").to_numpy() for n in CLASSES], axis=1)
    fallback = outputs.probabilities(release.fallback_logits(features[~there]))
    assert mine[~there].tobytes() == fallback.tobytes()
    logits = release.logits(np.empty(0, np.float32), features)
    assert (np.isfinite(logits).all(axis=1) == there).all()
    assert np.isfinite(mine).all()


def test_an_engine_that_is_pushed_the_log_says_the_same(
    bundle: Path, log: Path, tmp_path: Path
) -> None:
    score(bundle, log, tmp_path / "out")
    found = rows(tmp_path / "out").to_pylist()
    expected = asyncio.run(answers(bundle, log))
    assert {(row["stream"], row["last_us"]) for row in found} == expected.keys()
    for row in found:
        one = expected[row["stream"], row["last_us"]]
        assert row["first_us"] == one.first_us
        assert (row["label"], row["served_by"]) == (one.label, one.served_by)
        assert (row["model"], row["digest"], row["target"]) == (one.model, one.digest, one.target)
        assert [row[f"probability={name}"] for name in CLASSES] == one.scores


async def asked(bundle: Path, told: tiny_requests.Story) -> list[Any]:
    """What an agent answers to a log's requests, one after the other between its events."""
    release = LoadedRelease.open(bundle, TARGET)
    engine = Engine(
        Monitor(device="d", sample_every=100, now_ms=0),
        slices={},
        max_queue_rows=4096,
        now_us=lambda: tiny_requests.BEGIN + 3600 * tiny_requests.SECOND,
    )
    engine.set_active(release, "incumbent", None)
    events, request = told
    moments = [*np.asarray(events.arrived_us).tolist(), *request["at"].tolist()]
    count = len(np.asarray(events.arrived_us))
    found = []
    for step in np.argsort(moments, kind="stable").tolist():
        if step < count:
            times, sequence, arrived, fields = events.only(np.array([step]))
            await engine.observe("parcels", times, sequence, fields, arrived)
        else:
            row = np.array([step - count])
            found += await engine.ask(columns.taken(request, row))
    await engine.close()
    return found


def test_an_engine_that_is_told_the_log_answers_its_requests_so(tmp_path: Path) -> None:
    bundle = tiny_requests.tiny_requests(tmp_path / "bundle")
    told = tiny_requests.story(400, 150)
    definition = tiny_requests.DEFINITION
    log_folder.write(tmp_path / "log", definition, Log({"parcels": told.events}, told.request))
    score(bundle, tmp_path / "log", tmp_path / "out")
    found = rows(tmp_path / "out").to_pylist()
    expected = asyncio.run(asked(bundle, told))
    assert len(found) == len(expected) == 150
    for row, one in zip(found, expected, strict=True):
        assert (row["label"], row["served_by"]) == (one.label, one.served_by)
        assert (row["version"], row["digest"]) == (one.version, one.digest)
        assert [row[f"probability={name}"] for name in tiny_requests.CLASSES] == one.scores


@pytest.fixture(scope="module")
def of_requests(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    definition = msgspec.structs.replace(history.REQUESTS, features=history.REQUESTS.features[:4])
    names = definition.feature_names
    simple = baseline.parse((bundle / manifests.FALLBACK).read_bytes())
    files = {
        manifests.FEATURES: definitions.serialize(definition),
        manifests.FALLBACK: baseline.serialize(msgspec.structs.replace(simple, features=names)),
    }
    return changed(bundle, tmp_path_factory.mktemp("requests") / "bundle", files)


def test_requests_are_scored_with_their_own_columns(of_requests: Path, tmp_path: Path) -> None:
    log = history.write_requests(tmp_path / "log", 3000)
    done = score(of_requests, log, tmp_path / "out", keep=("id",))
    found = rows(tmp_path / "out")
    assert found.column_names == ["row", "at", "id", *ANSWER, *RELEASE]
    assert done.rows == found.num_rows == 1500
    definition = batch_scoring.Model.open(of_requests, None).definition
    assert isinstance(definition, type(history.REQUESTS))
    features = RequestEvaluator(definition).replay(*LogFolder(log, definition).read().log)
    model = batch_scoring.Model.open(of_requests, TARGET)
    scores = outputs.probabilities(model.logits(features))
    assert found.column("confidence").to_numpy().tobytes() == scores.max(axis=1).tobytes()
    # One row alone, in its own batch, is answered with the same bits.
    alone = np.concatenate([model.logits(features[place : place + 1]) for place in range(100)])
    assert alone.tobytes() == model.logits(features)[:100].tobytes()
    table = parquet.read_table(log / "requests.parquet")
    labelled = table.append_column("label", pa.array(["still"] * 1500))
    parquet.write_table(labelled, log / "requests.parquet")
    with pytest.raises(InvalidInput, match="two columns would be called label"):
        score(of_requests, log, tmp_path / "other", keep=("label",))


def test_raw_windows_are_scored(bundle: Path, log: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(3).normal(size=(16, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["samples"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "raw",
        [helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["batch", 8, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 18)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    raw = changed(
        bundle, tmp_path / "raw", {f"variants/{TARGET}/model.onnx": data}, input="samples"
    )
    score(raw, log, tmp_path / "out")
    found = rows(tmp_path / "out")
    release = LoadedRelease.open(raw, TARGET)
    windows = feature_rows.WindowRows(log, DEFINITION, samples=True)
    steps = [step.rows for step in windows.steps()]
    rounded = np.concatenate([feature_rows.matrix(table, "samples") for table in steps])
    logits = release.session.run(rounded.reshape(-1, 8, 2))
    scores = outputs.probabilities(logits)
    mine = np.stack([found.column(f"probability={n}").to_numpy() for n in CLASSES], axis=1)
    assert mine.tobytes() == scores.tobytes()


def test_a_kill_anywhere_changes_no_score(bundle: Path, log: Path, tmp_path: Path) -> None:
    parquet.write_table(parquet.read_table(log).slice(0, 1400), tmp_path / "log.parquet")
    arguments = ["everywhere", str(tmp_path), "score", str(bundle), str(tmp_path / "log.parquet")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulators.killed_runs", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


def _altered(bundle: Path) -> None:
    path = bundle / f"variants/{TARGET}/model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _more(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("damage", "said"), [(_altered, "was altered"), (_more, "does not list: notes.txt")]
)
def test_a_bundle_is_checked_before_it_is_used(
    damage: Callable[[Path], None], said: str, bundle: Path, log: Path, tmp_path: Path
) -> None:
    copy = changed(bundle, tmp_path / "bundle", {})
    damage(copy)
    with pytest.raises(InvalidBundle, match=said):
        score(copy, log, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_signature_is_asked_for_by_key(bundle: Path, log: Path, tmp_path: Path) -> None:
    key = bundle.parent / "key.pub.pem"
    assert score(bundle, log, tmp_path / "a", key=key).rows > 0
    with pytest.raises(UntrustedBundle, match="is not signed"):
        score(changed(bundle, tmp_path / "bundle", {}), log, tmp_path / "b", key=key)


def test_a_target_that_does_not_run_here_is_named(bundle: Path, log: Path, tmp_path: Path) -> None:
    (variant,) = folders.read(bundle).variants
    other = msgspec.structs.replace(variant, target="npu", runtime="rknn")
    both = changed(bundle, tmp_path / "bundle", {}, variants=[other, variant])
    done = score(both, log, tmp_path / "a")
    assert TARGET in done.job.model
    with pytest.raises(Unavailable, match=r"npu runs by rknn\); it has npu, cpu-x86_64-ort"):
        score(both, log, tmp_path / "b", target="npu")
    with pytest.raises(InvalidBundle, match="no variant for target gpu"):
        score(both, log, tmp_path / "b", target="gpu")


def test_the_command_tells_who_served(bundle: Path, log: Path, tmp_path: Path) -> None:
    arguments = ["score", str(bundle), "--input", str(log), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "rows served by the model" in done.output
    assert "late" in done.output
    request = {"part_rows": None}
    score(bundle, log, tmp_path / "other", **request)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "other")
