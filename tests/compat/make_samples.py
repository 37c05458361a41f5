"""Makes samples of every stored or sent format: ``python -m tests.compat.make_samples``.

The bytes are committed and are never made again: what an old release wrote does not change. A
format that moves gets a new folder beside the old one.
"""

import sys
from pathlib import Path

import msgspec

from converters import signing
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.slots import Pointer, Slots
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import DatasetRecord, GateResult, Waiver
from edge_core.messages import codec
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import (
    Online,
    PairedCounts1,
    Refusal,
    ReportedState,
    Sample,
    StatsWindow1,
)
from edge_core.release import ReleaseRef
from tests.simulators.tiny_bundle import TARGET, tiny_bundle

FOLDER = Path(__file__).parent / "v1"
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
MESSAGES: dict[str, msgspec.Struct] = {
    "stats": StatsWindow1(
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
        counts=bytes(range(64)),
        latency=b"\x01\0\0\0",
        right=b"\x02\0\0\0",
        wrong=b"\x03\0\0\0",
        paired=PairedCounts1(
            agree=100,
            disagree=20,
            both_right=50,
            only_active_right=4,
            only_shadow_right=5,
            both_wrong=6,
        ),
        paired_with=OTHER,
    ),
    "samples": Sample(
        device="watch-01",
        prediction_id="p-99",
        at_ms=1_790_000_000_500,
        release=ACTIVE,
        target=TARGET,
        arm="control",
        slices={"side": "right"},
        definition=None,
        window=b"\0\0\x80\x3f" * 16,
        features=b"\0\0\0\x40" * 4,
        scores=b"\0\0\0\x3f" * 3,
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
    "online": Online(device="watch-01", online=True),
    "desired": DESIRED,
}


def main() -> None:
    """Write every sample, or nothing where some exist."""
    if any(FOLDER.glob("*")):
        sys.exit(f"{FOLDER} holds samples already, and samples are never made again")
    (FOLDER / "messages").mkdir(parents=True)
    for name, message in MESSAGES.items():
        (FOLDER / "messages" / f"{name}.msgpack").write_bytes(codec.encode(message))
    Journal(FOLDER).write(
        Entry(state="probation", desired=DESIRED, starts=2, reason="", refusals=[REFUSED])
    )
    Slots(FOLDER).switch(Pointer(active=ACTIVE.digest, previous=OTHER.digest))
    (FOLDER / "slots").rmdir()
    _bundle(FOLDER / "bundle")


def _bundle(folder: Path) -> None:
    """A signed bundle whose manifest uses every field; its private key is thrown away."""
    tiny_bundle(folder, version="1.2.3")
    path = folder / manifests.MANIFEST
    manifest = manifests.parse(path.read_bytes())
    manifest = msgspec.structs.replace(
        manifest,
        parent=OTHER,
        provenance=msgspec.structs.replace(
            manifest.provenance,
            settings={"rate": 0.5, "epochs": 3, "mirror": True, "note": None, "layers": ["a"]},
            code_commit="d" * 40,
            code_dirty=False,
        ),
        datasets=[
            *manifest.datasets,
            DatasetRecord(
                role="test",
                name="walks",
                source="a made-up archive",
                sha256="c" * 64,
                rows=300,
                entities=["s1", "s2"],
                first="2025-01-02T03:04:05Z",
                last="2025-02-03T04:05:06Z",
            ),
        ],
        gates=[
            *manifest.gates,
            GateResult(
                gate="slice_accuracy",
                outcome="failed",
                target=TARGET,
                slice="side=left",
                value=0.5,
                threshold=0.75,
                rows=40,
                waived=True,
                detail="few rows",
            ),
        ],
        waivers=[Waiver(gate="slice_accuracy", slice="side=left", reason="known and accepted")],
        label_delay_seconds=3600.0,
        reproducible=True,
    )
    path.write_bytes(manifests.serialize(manifest))
    private = signing.generate_key(folder.parent / "keys")
    signing.sign_folder(folder, private)
    public = private.with_name(signing.PUBLIC_KEY)
    public.rename(folder.parent / signing.PUBLIC_KEY)
    private.unlink()
    private.parent.rmdir()


if __name__ == "__main__":
    main()
