"""What an old release wrote or sent still means the same, and the unknown is never guessed."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.x509 import load_pem_x509_certificates

from converters import attesting, checking
from converters.data import snapshot_folder
from edge_agent.commands import Commands
from edge_agent.floor_file import FloorFile, StoredFloor
from edge_agent.identity.files import IdentityFiles
from edge_agent.identity.trust import Trust
from edge_agent.memory_file import MemoryFile
from edge_agent.serving.policy import Order
from edge_agent.serving.remembering import Stored
from edge_agent.update.journal import FILE, Entry, Journal
from edge_agent.update.sealing import seal
from edge_agent.update.slots import Pointer, Slots
from edge_core import baseline
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle import provenance, signature, trust
from edge_core.bundle.manifest import (
    DataSnapshot,
    EmbeddingRecord,
    FileEntry,
    GateResult,
    Privacy,
    Waiver,
)
from edge_core.errors import InvalidBundle, InvalidMessage, UntrustedBundle
from edge_core.features import definition as definitions
from edge_core.features.over_samples import Mean, Std
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream
from edge_core.messages import codec, windows
from edge_core.messages.command import Command, FallbackOn
from edge_core.messages.deployment import DesiredState, DesiredState1
from edge_core.messages.telemetry import (
    CommandOutcome,
    Cost,
    FallbackCounts,
    FallbackMode,
    Online,
    PackedWindow,
    PairedCounts,
    Placement,
    Probation,
    Refusal,
    ReportedState,
    Sample,
    StatsWindow,
)
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import histogram
from edge_core.stats.projection import Projection
from tests.compat.features import (
    EARLIER,
    EARLIER_SAMPLES,
    EVERY_OPERATION,
    LATER,
    LATER_SAMPLES,
    half_fed,
)
from tests.converters import motion, shop

ROOT = Path(__file__).parents[2]
V1 = Path(__file__).parent / "v1"
V2 = Path(__file__).parent / "v2"
V3 = Path(__file__).parent / "v3"
V4 = Path(__file__).parent / "v4"
PROVENANCE_V1 = Path(__file__).parent / "provenance_v1"
BUNDLE = V1 / "bundle"
TARGET = "cpu-x86_64-ort"
ACTIVE = ReleaseRef(model="tiny-motion", version="1.2.3", digest="a" * 64)
OTHER = ReleaseRef(model="tiny-motion", version="1.2.2", digest="b" * 64)
REFUSED = Refusal(release=OTHER, reason="golden logits differ", at_ms=1_790_000_000_123)
DESIRED = DesiredState(
    revision=12,
    issued_ms=1_790_000_000_000,
    active=ACTIVE,
    shadow=OTHER,
    arm="candidate",
    rollout="r-7",
)
COMMAND = Command(
    id="c-17",
    issued_ms=1_790_000_000_000,
    expires_ms=1_790_003_600_000,
    action=FallbackOn(model="tiny-motion", reason="the season turned", until_ms=1_790_007_200_000),
)
MESSAGES: dict[str, codec.Message] = {
    "command": COMMAND,
    "desired": DESIRED,
    "online": Online(device="watch-01", online=True),
    "samples": Sample(
        device="watch-01",
        prediction_id="p-99",
        at_ms=1_790_000_000_500,
        release=ACTIVE,
        target=TARGET,
        arm="control",
        slices={"side": "right"},
        definition=None,  # version 1 did not say
        window=np.full(16, 1, "<f4").tobytes(),
        features=np.full(4, 2, "<f4").tobytes(),
        scores=np.full(3, 0.5, "<f4").tobytes(),
    ),
    "state": ReportedState(
        device="watch-01",
        at_ms=1_790_000_000_700,
        target=TARGET,
        runtime="onnxruntime 1.30",
        slices={"side": "left"},
        desired_revision=12,
        active=ACTIVE,
        previous=OTHER,
        shadow=OTHER,
        update="recovering",
        reason="probation failed",
        refusals=[REFUSED],
    ),
    "stats": StatsWindow(
        device="watch-01",
        epoch="e1",
        sequence=41,
        opened_ms=1_790_000_000_000,
        closed_ms=1_790_000_060_000,
        release=ACTIVE,
        target=TARGET,
        arm="shadow",
        rollout="r-7",
        slices={"side": "left"},
        rows=120,
        errors=2,
        late=3,
        counts=np.frombuffer(bytes(range(64)), "<u4").astype("<i8").tobytes(),
        latency=np.array([1], "<i8").tobytes(),
        right=np.array([2], "<i8").tobytes(),
        wrong=np.array([3], "<i8").tobytes(),
        paired=PairedCounts(
            agree=100,
            disagree=20,
            both_right=50,
            only_active_right=4,
            only_shadow_right=5,
            both_wrong=6,
        ),
        paired_with="b" * 12,
    ),
}
KINDS = {name: type(message) for name, message in MESSAGES.items()} | {"stats": PackedWindow}

SCHEMA = WindowSchema(
    release=ACTIVE,
    targets=("cpu-aarch64-ort", TARGET),
    slices=(("hand", ("weak", "strong")), ("side", ("left", "right"))),
    sizes=(5, 4, 5, 6),
    confidence_size=5,
    epsilon=None,
    values=(8, 1, 1, 1),
)
SECOND_WINDOW = msgspec.structs.replace(
    MESSAGES["stats"],
    epoch="0123456789abcdef",
    counts=np.array([9, 400, 500, 51, 0, 0, 120, 0, 0, 0, 1, 0, 119, 0, 10, 20, 30, 60, 0, 0]),
    latency=np.array([0, 0, 0, 100, 19, 1, *[0] * 18]),
    right=np.array([0, 10, 30, 0, 0]),
    wrong=np.array([0, 4, 0, 0, 0]),
    cost=Cost(
        cpu_us=123_456,
        cached=7,
        sent_bytes=4321,
        span_ms=60_000,
        consumers={"till": 100, "uid 1000": 20},
    ),
    fallbacks=FallbackCounts(missing=1, error=2, breaker=3, command=114),
    dropped=9,
)
SECOND_WINDOW = msgspec.structs.replace(
    SECOND_WINDOW,
    **{
        name: getattr(SECOND_WINDOW, name).astype("<i8").tobytes()
        for name in ("counts", "latency", "right", "wrong")
    },
)

SECOND_SAMPLE = msgspec.structs.replace(
    MESSAGES["samples"],
    definition="c" * 64,
    window=b"",
    request=b"a request",
    memory=b"what it could see",
)


SECOND_STATE = msgspec.structs.replace(
    MESSAGES["state"],
    fallbacks=[
        FallbackMode(
            model="tiny-motion",
            cause="command",
            reason="the season turned",
            since_ms=1_790_000_000_100,
            until_ms=1_790_007_200_000,
        )
    ],
    commands=[CommandOutcome(id="c-17", outcome="done", detail="", at_ms=1_790_000_000_100)],
    placement=Placement(
        operators={"CPUExecutionProvider": 7},
        wanted=["QNNExecutionProvider"],
        absent=["QNNExecutionProvider"],
        fell_back=7,
    ),
    shadow_dropped=31,
    probation=Probation(passed=True, rows=120, errors=1, restarts=2, verdict="120 rows"),
    troubles=["the outbox was damaged and began anew"],
)


def message_bytes(name: str) -> bytes:
    return (V1 / "messages" / f"{name}.msgpack").read_bytes()


SECOND_DESIRED = msgspec.structs.replace(DESIRED, confirm_seconds=900.0, confirmed=True)


def test_every_kind_of_message_has_a_sample() -> None:
    assert set(KINDS.values()) == set(codec.CURRENT)
    assert {path.stem for path in (V1 / "messages").iterdir()} == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_means_what_it_meant(name: str) -> None:
    expected, data = MESSAGES[name], message_bytes(name)
    if isinstance(expected, ReportedState):
        expected = msgspec.structs.replace(expected, v=1)  # tells what the device can read
    found = codec.decode_window(data) if name == "stats" else codec.decode(KINDS[name], data)
    assert found == expected


@pytest.mark.parametrize("name", MESSAGES)
def test_the_next_version_of_a_message_is_refused_by_name(name: str) -> None:
    kind = KINDS[name]
    document = msgspec.msgpack.decode(message_bytes(name))
    current = codec.CURRENT[kind]
    later = msgspec.msgpack.encode(document | {"v": current + 1})
    known = {1: "is 1", 2: "are 1 and 2"}[current]
    words = rf"{kind.__name__} has version {current + 1}; known {known}"
    with pytest.raises(InvalidMessage, match=words):
        codec.decode(kind, later)


def test_a_sample_of_the_second_version_means_what_it_meant() -> None:
    kept = (V2 / "messages" / "samples.msgpack").read_bytes()
    assert codec.decode(Sample, kept) == SECOND_SAMPLE
    assert codec.encode(SECOND_SAMPLE) == kept


def test_a_state_of_the_second_version_means_what_it_meant() -> None:
    kept = (V2 / "messages" / "state.msgpack").read_bytes()
    assert codec.decode(ReportedState, kept) == SECOND_STATE
    assert codec.encode(SECOND_STATE) == kept


def test_a_state_of_the_first_version_has_no_fields_of_the_second() -> None:
    document = msgspec.msgpack.decode(message_bytes("state")) | {"shadow_dropped": 3}
    with pytest.raises(InvalidMessage, match="unknown field `shadow_dropped`"):
        codec.decode(ReportedState, msgspec.msgpack.encode(document))


def test_what_was_ordered_is_read_as_it_was(tmp_path: Path) -> None:
    shutil.copy(V1 / "commands.json", tmp_path / "commands.json")
    commands = Commands(tmp_path, now_ms=lambda: 1_790_000_000_200, follow=lambda _: None)
    assert commands.orders == [
        Order(
            model="tiny-motion",
            reason="the season turned",
            since_ms=1_790_000_000_100,
            until_ms=1_790_007_200_000,
        )
    ]
    assert commands.outcomes == SECOND_STATE.commands
    assert commands.take(message_bytes("command")) == commands.outcomes[0]


def test_a_window_of_the_second_version_means_what_it_meant() -> None:
    kept = (V2 / "messages" / "stats.msgpack").read_bytes()
    packed = codec.decode_window(kept)
    assert isinstance(packed, PackedWindow)
    assert windows.unpack(windows.head(packed), SCHEMA, "watch-01") == SECOND_WINDOW
    assert codec.encode(windows.pack(SECOND_WINDOW, SCHEMA)) == kept


def test_a_confirmation_means_what_it_meant() -> None:
    kept = (V2 / "messages" / "desired.msgpack").read_bytes()
    assert codec.decode(DesiredState, kept) == SECOND_DESIRED
    assert codec.encode(SECOND_DESIRED) == kept


def test_a_device_of_before_can_be_told_what_it_reads() -> None:
    told = codec.encode(DesiredState1.of(SECOND_DESIRED))
    assert msgspec.msgpack.decode(told, type=DesiredState1).revision == SECOND_DESIRED.revision
    assert "confirm_seconds" not in msgspec.msgpack.decode(told)
    back = codec.decode(DesiredState, told)
    assert (back.v, back.confirm_seconds, back.confirmed) == (2, None, False)


def test_whom_a_device_has_learnt_to_trust_is_read_as_it_was(tmp_path: Path) -> None:
    files = IdentityFiles(tmp_path)
    files.keep_learnt((V1 / "trusted.json").read_bytes())
    learnt = Trust(files, V1 / "fleet-ca.pem").learnt or ""
    names = [one.subject.rfc4514_string() for one in load_pem_x509_certificates(learnt.encode())]
    assert names == ["CN=Serinus device CA 5ca1ab1e", "CN=Serinus device CA 00ddba11"]


def test_what_features_remember_is_read_as_it_was(tmp_path: Path) -> None:
    shutil.copy(V2 / "memory.bin", tmp_path / "memory.bin")
    stored = MemoryFile(tmp_path, max_bytes=4096, max_age_seconds=60).read(1_790_000_000_000)
    assert stored == Stored(
        definition="c" * 64, at_ms=1_790_000_000_000, parts={"wrist": b"one", "hip": b"two"}
    )


def test_the_time_that_was_reached_is_read_as_it_was() -> None:
    assert FloorFile(V4).read() == StoredFloor(
        at_ms=1_790_000_000_000,
        boot="5e8f0c3a-0000-4000-8000-000000000001",
        since_boot_ms=86_400_000,
    )


def test_the_manifest_says_what_it_said() -> None:
    data = (BUNDLE / manifests.MANIFEST).read_bytes()
    manifest = manifests.parse(data)
    assert (manifest.model, manifest.version, manifest.parent) == ("tiny-motion", "1.2.3", OTHER)
    assert manifest.description == "Tells still, shaken and tilted apart."
    assert manifest.output.classes == ["still", "shake", "tilt"]
    assert manifest.slices == {"side": ["left", "right"]}
    assert [(d.role, d.rows, d.entities) for d in manifest.datasets] == [
        ("golden", 12, ["generator"]),
        ("test", 300, ["s1", "s2"]),
    ]
    assert manifest.datasets[1].first == "2025-01-02T03:04:05Z"
    assert manifest.provenance.settings == {
        "rate": 0.5,
        "epochs": 3,
        "mirror": True,
        "note": None,
        "layers": ["a"],
    }
    assert (manifest.provenance.code_commit, manifest.provenance.code_dirty) == ("d" * 40, False)
    variant = manifest.variant(TARGET)
    assert (variant.runtime, variant.path) == ("onnxruntime", f"variants/{TARGET}/model.onnx")
    assert (variant.tolerance, variant.latency_us) == (1e-4, {"1": 20.0})
    assert manifest.budget.memory_bytes == 64 * 1024 * 1024
    assert manifest.metrics["accuracy/side=left"] == 1.0
    assert manifest.gates[1] == GateResult(
        gate="slice_accuracy",
        outcome="failed",
        target=TARGET,
        slice="side=left",
        value=0.5,
        threshold=0.75,
        rows=40,
        waived=True,
        detail="few rows",
    )
    assert manifest.waivers == [
        Waiver(gate="slice_accuracy", slice="side=left", reason="known and accepted")
    ]
    assert (manifest.label_delay_seconds, manifest.reproducible) == (3600.0, True)
    assert manifest.file(manifests.FALLBACK) == FileEntry(
        path="fallback.json",
        size=547,
        sha256="05ad54ca55be3a64663e7068764a1fd915de82c04dc1f8e79f4e9c2db2201fdf",
    )


def test_nothing_of_the_manifest_is_lost() -> None:
    data = (BUNDLE / manifests.MANIFEST).read_bytes()
    assert kept(json.loads(data), msgspec.to_builtins(manifests.parse(data)))


def test_the_second_manifest_names_its_data_and_what_gates_watch() -> None:
    data = (V2 / "manifest.json").read_bytes()
    manifest = manifests.parse(data)
    assert kept(json.loads(data), msgspec.to_builtins(manifest))
    assert (manifest.schema_version, manifest.main_metric) == (2, "accuracy")
    assert manifest.privacy is None
    assert manifest.snapshot == DataSnapshot(
        id="e" * 64,
        name="walks",
        source="a made-up archive",
        schema_sha256="f" * 64,
        rows={"recordings": 4, "samples": 166},
        first="2025-01-02T03:04:05Z",
        last="2025-02-03T04:05:06Z",
    )


def test_the_third_manifest_says_what_devices_keep() -> None:
    data = (V3 / "manifest.json").read_bytes()
    manifest = manifests.parse(data)
    assert manifests.serialize(manifest) == data
    assert manifest.schema_version == 3
    assert manifest.privacy == Privacy(epsilon=2.5, redacted=["ax"])


def test_the_fourth_manifest_and_the_second_reference_have_an_embedding() -> None:
    data = (V4 / "manifest.json").read_bytes()
    manifest = manifests.parse(data)
    assert manifests.serialize(manifest) == data
    assert (manifest.schema_version, manifest.output.embedding) == (4, 5)
    assert manifest.variants[0].embedding == EmbeddingRecord(numeric_error=0.0, tolerance=1e-4)
    data = (V2 / manifests.REFERENCE).read_bytes()
    reference = histogram.parse(data)
    assert histogram.serialize(reference) == data
    assert reference.projection == Projection(
        size=5, directions=8, signs=bytes.fromhex("98de59b175")
    )
    seen = [channel for channel in reference.channels if channel.kind == "embedding"]
    assert [channel.name for channel in seen] == [f"embedding[{place}]" for place in range(8)]
    assert seen[0].edges[0] == -1.8505339622497559


def test_data_snapshots_hold_what_they_held() -> None:
    """Their ids, too: they stand in signed manifests."""
    place = V1 / "data" / "log"
    record = snapshot_folder.read_record(
        place, "989266d42a7445f4bb07f794318a8b985ec7452eeb418398430b1df4d880e384"
    )
    log = snapshot_folder.read_log(place, record, shop.DEFINITION, ["shop"])
    assert [log.labels[0], log.roles[0], log.slices["shop"][0]] == ["dear", "train", "north"]
    assert log.roles.count("calibration") == 30
    assert np.asarray(log.log.request["at"])[1] == 1_700_354_600_000_000
    assert np.asarray(log.log.events["sales"].fields["price"])[2] == np.float32(29.525102)
    place = V1 / "data" / "recordings"
    record = snapshot_folder.read_record(
        place, "6cae0f8f9c828daab2a4418d1ce9cb0d3c113da8ea0b397523fa4ce314122cd9"
    )
    found = list(snapshot_folder.read_recordings(place, record, motion.WINDOWS, ["side"]))
    assert [(len(one.samples), one.role, one.entity) for one in found] == [
        (40, "train", "subject 0"),
        (41, "calibration", "subject 1"),
        (42, "test", "subject 2"),
        (43, "golden", "subject 3"),
    ]
    assert found[0].samples[1].tolist() == np.float32([0.33043706, -1.3031572]).tolist()


def kept(before: Any, after: Any) -> bool:
    """Whether all of one document is in another, which may have more fields."""
    if isinstance(before, dict):
        return all(key in after and kept(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(kept, before, after))
    return bool(before == after)


def test_the_feature_definition_says_what_it_said() -> None:
    definition = definitions.parse((BUNDLE / manifests.FEATURES).read_bytes())
    assert definition == WindowDefinition(
        v=1,
        inputs=[
            SensorInput(name="ax", unit="g", lsb=2**-10, low=-8.0, high=8.0),
            SensorInput(name="ay", unit="g", lsb=2**-10, low=-8.0, high=8.0),
        ],
        window=Window(samples=8, hop=4, max_gap_ms=100, rate_hz=50.0),
        features=[
            Mean(name="ax_mean", input="ax"),
            Std(name="ax_std", input="ax"),
            Mean(name="ay_mean", input="ay"),
            Std(name="ay_std", input="ay"),
        ],
    )


def test_the_second_feature_definition_says_what_it_said() -> None:
    data = (V2 / "features.json").read_bytes()
    assert definitions.parse(data) == EVERY_OPERATION
    assert definitions.serialize(EVERY_OPERATION) == data


def test_a_stream_goes_on_from_what_it_remembered() -> None:
    definition = definitions.parse((BUNDLE / manifests.FEATURES).read_bytes())
    stream = FeatureStream.restore(definition, (V1 / "stream.snapshot").read_bytes())
    assert (stream.late, stream.gaps) == (1, 1)
    fed = half_fed(definition)
    for one in (stream, fed):
        windows = one.push(LATER, LATER_SAMPLES)
        assert windows.first_us.tolist() == [1_080_000, 1_160_000]
        assert (
            windows.features.tobytes()
            == FeatureStream(definition)
            .push(
                np.concatenate((EARLIER[-4:], LATER)),
                np.concatenate((EARLIER_SAMPLES[-4:], LATER_SAMPLES)),
            )
            .features.tobytes()
        )


def test_a_definition_of_requests_and_its_state_say_what_they_said() -> None:
    data = (V2 / "requests.json").read_bytes()
    definition = definitions.of_requests(definitions.parse(data))
    assert definitions.serialize(definition) == data
    newer = (V2 / "requests.2.state").read_bytes()
    assert RequestEvaluator.restore(definition, newer).snapshot() == newer
    evaluator = RequestEvaluator.restore(definition, (V2 / "requests.state").read_bytes())
    assert evaluator.snapshot() == newer
    found = evaluator.ask(
        {"at_time": [1_700_000_200_000_000], "place": ["a"], "size": [2.5]},
    )
    assert dict(zip(definition.feature_names, found[0].tolist(), strict=True)) == {
        "count": 2.0,
        "mean": 2.25,
        "since": 100.0,
        "size_log": np.float32(np.log(3.5)),
        "at=a": 1.0,
        "at=other": 0.0,
        "month": 10.0,
    }


def test_the_reference_says_what_it_said() -> None:
    reference = histogram.parse((BUNDLE / manifests.REFERENCE).read_bytes())
    assert reference.rows == 120
    assert [(channel.name, channel.kind) for channel in reference.channels] == [
        ("ax", "input"),
        ("ay", "input"),
        ("ax_mean", "feature"),
        ("ax_std", "feature"),
        ("ay_mean", "feature"),
        ("ay_std", "feature"),
        ("confidence", "score"),
        ("predicted", "score"),
    ]
    assert reference.channels[0].edges[0] == -3.3549933433532715
    assert reference.channels[4].counts == [0, 12, 12, 11, 13, 12, 12, 12, 12, 12, 12, 0, 0]
    assert reference.channels[-1].edges == [-0.5, 0.5, 1.5, 2.5]
    assert reference.channels[-1].counts == [0, 40, 40, 40, 0, 0]
    assert histogram.Layout(reference).total == 7 * 13 + 6


def test_the_fallback_answers_what_it_answered() -> None:
    simple = baseline.parse((BUNDLE / manifests.FALLBACK).read_bytes())
    assert simple.features == ["ax_mean", "ax_std", "ay_mean", "ay_std"]
    assert (simple.mean, simple.scale, simple.bias) == ([0.0] * 4, [1.0] * 4, [1.0, -1.0, -1.0])
    assert simple.weights[1] == [-1.9989509582519531, 1.9946433305740356, 0.0036159504670649767]
    rows = np.array([[0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]], np.float32)
    logits = simple.logits(rows, simple.features)
    assert logits.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(logits[1], [-2.997902, 2.989287, -0.992768], atol=1e-6)


def test_the_signature_holds_and_names_what_it_named() -> None:
    key = signature.load_public_key((V1 / "statement.pub.pem").read_bytes())
    data = (BUNDLE / manifests.SIGNATURE).read_bytes()
    statement = signature.verify(data, [key])
    assert statement.name == "tiny-motion-1.2.3"
    assert sorted(statement.resources) == [
        "card.md",
        "fallback.json",
        "features.json",
        "golden.npz",
        "manifest.json",
        "reference.bin",
        f"variants/{TARGET}/model.onnx",
    ]
    manifest = (BUNDLE / manifests.MANIFEST).read_bytes()
    assert statement.resources["manifest.json"] == hashlib.sha256(manifest).hexdigest()
    assert trust.accept(manifest, data, None, [key]).version == "1.2.3"


def test_the_whole_bundle_is_accepted_and_its_golden_rows_agree() -> None:
    said = checking.verify(BUNDLE, V1 / "statement.pub.pem")
    assert said[0] == "signature by statement.pub.pem holds, 6 files are whole"
    assert said[1] == "it has no provenance.sig: it was signed before there was one"
    assert said[2].startswith(f"{TARGET}: 12 golden rows agree")
    manifest = hashlib.sha256((BUNDLE / manifests.MANIFEST).read_bytes()).hexdigest()
    assert folders.ref(BUNDLE) == ReleaseRef(model="tiny-motion", version="1.2.3", digest=manifest)


def test_provenance_says_what_it_said() -> None:
    key = signature.load_public_key((PROVENANCE_V1 / "statement.pub.pem").read_bytes())
    manifest, signed, attested = (
        (PROVENANCE_V1 / name).read_bytes()
        for name in (manifests.MANIFEST, manifests.SIGNATURE, manifests.PROVENANCE)
    )
    parsed = trust.accept(manifest, signed, attested, [key])
    digest = hashlib.sha256(manifest).hexdigest()
    said = provenance.verify(attested, digest, [key]).predicate
    assert said == attesting.predicate(parsed, digest)
    assert said.build_definition.external_parameters == {
        "recipe": "tiny",
        "release": "tiny-motion@1.2.3",
        "seed": 0,
        "targets": [TARGET],
        "waivers": [
            {"gate": "slice_accuracy", "slice": "side=left", "reason": "known and accepted"}
        ],
    }
    inputs = {entry.name: entry for entry in said.build_definition.resolved_dependencies}
    assert inputs["code"].digest == {"gitCommit": "d" * 40}
    assert inputs["parent/tiny-motion@1.2.2"].digest == {"sha256": "b" * 64}
    assert inputs["teacher/tiny-motion@1.0.0"].digest == {"sha256": "c" * 64}
    assert inputs["tool/torch"].uri == "pkg:pypi/torch@2.13.0%2Bcpu"
    with pytest.raises(UntrustedBundle, match="taken away"):
        trust.accept(manifest, signed, None, [key])


LATER_DOCUMENTS: dict[str, tuple[Callable[[bytes], object], bytes, bytes, str]] = {
    "manifest.json": (
        manifests.parse,
        b'"schema_version": 1',
        b'"schema_version": 5',
        "manifest has schema version 5; this Serinus reads 1 to 4",
    ),
    "features.json": (
        definitions.parse,
        b'"v": 1',
        b'"v": 3',
        "feature definition has version 3; known are 1 and 2",
    ),
    "reference.bin": (
        histogram.parse,
        b"\xa1v\x01",
        b"\xa1v\x03",
        "reference has version 3; known are 1 and 2",
    ),
    "fallback.json": (
        baseline.parse,
        b'"v": 1',
        b'"v": 2',
        "fallback has version 2; known is 1",
    ),
}


@pytest.mark.parametrize("name", LATER_DOCUMENTS)
def test_the_next_version_of_a_document_is_refused_by_name(name: str) -> None:
    parse, now, later, words = LATER_DOCUMENTS[name]
    data = (BUNDLE / name).read_bytes()
    parse(data)
    assert data.count(now) == 1
    with pytest.raises(InvalidBundle, match=words):
        parse(data.replace(now, later))


def test_the_next_version_of_a_signature_is_refused_by_name() -> None:
    key = signature.load_public_key((V1 / "statement.pub.pem").read_bytes())
    data = (BUNDLE / manifests.SIGNATURE).read_bytes()
    with pytest.raises(UntrustedBundle, match=r"not a sigstore bundle v0\.3: .*v0\.4"):
        signature.verify(data.replace(b"bundle.v0.3+json", b"bundle.v0.4+json"), [key])


def state_folder(tmp_path: Path) -> Path:
    return copied(V1, tmp_path)


def copied(samples: Path, folder: Path) -> Path:
    """A state folder with the journal and the pointer of these samples."""
    folder.mkdir(exist_ok=True)
    for name in (FILE, "active.json"):
        shutil.copy(samples / name, folder / name)
    return folder


def test_the_journal_says_what_it_said(tmp_path: Path) -> None:
    desired = msgspec.structs.replace(DESIRED, v=1)
    assert Journal(state_folder(tmp_path)).read() == Entry(
        state="probation", desired=desired, starts=2, reason="", refusals=[REFUSED]
    )


def test_the_next_version_of_a_journal_asks_for_recovery_by_name(tmp_path: Path) -> None:
    path = state_folder(tmp_path) / FILE
    later = path.read_bytes().replace(b'{"v":1,"state"', b'{"v":3,"state"')
    for data in (later, seal(later)):
        path.write_bytes(data)
        entry = Journal(tmp_path).read()
        assert (entry.state, entry.reason) == ("unreadable", "journal has version 3")


def test_the_second_version_of_journal_and_pointer_is_sealed_and_means_the_same(
    tmp_path: Path,
) -> None:
    before = state_folder(tmp_path / "v1")
    assert Journal(V2).read() == Journal(before).read()
    assert Slots(copied(V2, tmp_path / "v2")).pointer() == Slots(before).pointer()
    for name in (FILE, "active.json"):
        first, second = (V1 / name).read_bytes(), (V2 / name).read_bytes()
        assert second == seal(first.replace(b'{"v":1,', b'{"v":2,', 1))


@pytest.mark.parametrize("name", [FILE, "active.json"])
def test_a_sealed_file_with_any_bit_changed_is_not_believed(tmp_path: Path, name: str) -> None:
    state = copied(V2, tmp_path)
    data = (V2 / name).read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        (state / name).write_bytes(changed)
        if name == FILE:
            assert Journal(state).read().state == "unreadable"
        else:
            assert Slots(state).pointer() is None


def test_the_pointer_names_what_it_named(tmp_path: Path) -> None:
    found = Slots(state_folder(tmp_path)).pointer()
    assert found == Pointer(active=ACTIVE.digest, previous=OTHER.digest)


def test_every_format_that_has_a_version_has_samples_here() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), name): int(version)
        for package in ("edge_core", "edge_agent")
        for path in (ROOT / package).rglob("*.py")
        for name, version in re.findall(r"^(\w*VERSION) = (\d+)$", path.read_text(), re.MULTILINE)
    }
    assert found == {
        ("edge_agent/floor_file.py", "FLOOR_VERSION"): 1,
        ("edge_agent/identity/trust.py", "TRUSTED_VERSION"): 1,
        ("edge_agent/memory_file.py", "MEMORY_VERSION"): 1,
        ("edge_agent/update/journal.py", "JOURNAL_VERSION"): 2,
        ("edge_agent/update/slots.py", "POINTER_VERSION"): 2,
        ("edge_agent/update/journal.py", "UNSEALED_VERSION"): 1,
        ("edge_agent/update/slots.py", "UNSEALED_VERSION"): 1,
        ("edge_core/baseline.py", "BASELINE_VERSION"): 1,
        ("edge_core/bundle/manifest.py", "SCHEMA_VERSION"): 4,
        ("edge_core/bundle/manifest.py", "PLAIN_VERSION"): 3,
        ("edge_core/features/definition.py", "DEFINITION_VERSION"): 2,
        ("edge_core/features/remembered.py", "STATE_VERSION"): 2,
        ("edge_core/features/windowing.py", "SNAPSHOT_VERSION"): 1,
        ("edge_agent/commands.py", "COMMANDS_VERSION"): 1,
        ("edge_core/messages/command.py", "COMMAND_VERSION"): 1,
        ("edge_core/messages/deployment.py", "DESIRED_VERSION"): 2,
        ("edge_core/messages/telemetry.py", "ONLINE_VERSION"): 1,
        ("edge_core/messages/telemetry.py", "SAMPLE_VERSION"): 2,
        ("edge_core/messages/telemetry.py", "STATE_VERSION"): 2,
        ("edge_core/messages/telemetry.py", "STATS_VERSION"): 2,
        ("edge_core/stats/histogram.py", "REFERENCE_VERSION"): 2,
        ("edge_core/stats/histogram.py", "PLAIN_VERSION"): 1,
    }, "a format was added or moved: add its samples beside v1, and never make v1 again"


def test_samples_are_never_made_again() -> None:
    before = {path: path.read_bytes() for path in V1.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-m", "tests.compat.make_samples"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "samples are never made again" in done.stderr
    assert {path: path.read_bytes() for path in V1.rglob("*") if path.is_file()} == before
