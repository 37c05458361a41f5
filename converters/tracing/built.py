"""The links that a manifest tells of: data, features, training, conversion, gates. No I/O."""

from collections.abc import Iterator

from converters.tracing.link import Fact, Link, facts, short
from edge_core.bundle.manifest import DatasetRecord, GateResult, Manifest, VariantRecord

DATA, FEATURES, TRAINING, CONVERSION, GATES = [
    "data",
    "features",
    "training",
    "conversion",
    "gates",
]


def links(manifest: Manifest) -> list[Link]:
    """What the manifest says, and what it leaves open; whether it is to be believed is not said."""
    return [
        _data(manifest),
        Link(name=FEATURES, facts=facts([("definition", short(manifest.features_sha256))])),
        _training(manifest),
        Link(name=CONVERSION, facts=[_variant(variant) for variant in manifest.variants]),
        _gates(manifest),
    ]


def _data(manifest: Manifest) -> Link:
    told = [_dataset(record) for record in manifest.datasets]
    if manifest.snapshot is not None:
        told += facts([(f"snapshot {manifest.snapshot.name}", short(manifest.snapshot.id))])
    unknown = [] if manifest.datasets else ["the manifest names no data"]
    return Link(name=DATA, facts=told, unknown=unknown)


def _dataset(record: DatasetRecord) -> Fact:
    span = f", {record.first} to {record.last}" if record.first and record.last else ""
    return Fact(
        name=f"{record.role} {record.name}",
        value=f"{record.rows} rows, {short(record.sha256)}{span}",
    )


def _training(manifest: Manifest) -> Link:
    made, parent, teacher = manifest.provenance, manifest.parent, manifest.teacher
    told = facts(
        [
            ("recipe", f"{made.recipe}, {short(made.recipe_sha256)}"),
            ("code", made.code_commit),
            ("seed", made.seed),
            ("parent", parent and f"{parent.name}, {short(parent.digest)}"),
            ("teacher", teacher and f"{teacher.name}, {short(teacher.digest)}"),
            ("tools", ", ".join(f"{name} {made.tools[name]}" for name in sorted(made.tools))),
            ("machine", made.machine),
        ]
    )
    return Link(name=TRAINING, facts=told, unknown=_code(manifest))


def _code(manifest: Manifest) -> list[str]:
    made = manifest.provenance
    if made.code_commit is None:
        return ["the code's commit is not known: it was built outside of a checkout"]
    if made.code_dirty:
        return ["the recipe had changes that no commit has"]
    return []


def _variant(variant: VariantRecord) -> Fact:
    error, agreement = variant.numeric_error, variant.top1_agreement
    losses = [
        "loss against fp32 not measured" if error is None else f"numeric error {error:.3g}",
        *([] if agreement is None else [f"agrees on {agreement:.2%} of answers"]),
        "ran on hardware" if variant.ran_on_hardware else "never ran on hardware",
    ]
    return Fact(name=variant.target, value=", ".join(losses))


def _gates(manifest: Manifest) -> Link:
    reasons = {(waiver.gate, waiver.slice): waiver.reason for waiver in manifest.waivers}
    told = [Fact(name=_gate_name(gate), value=_outcome(gate)) for gate in manifest.gates]
    told += [
        Fact(name=f"waiver of {gate}{f' {part}' if part else ''}", value=reason)
        for (gate, part), reason in reasons.items()
    ]
    unknown = [] if manifest.gates else ["no gate ever judged it"]
    return Link(name=GATES, facts=told, broken=list(_not_passed(manifest)), unknown=unknown)


def _not_passed(manifest: Manifest) -> Iterator[str]:
    waived = {waiver.gate for waiver in manifest.waivers}
    for gate in manifest.gates:
        if gate.outcome == "passed":
            continue
        if not gate.waived:
            yield f"{_gate_name(gate)} says {gate.outcome} and is not waived"
        elif gate.gate not in waived:
            yield f"{_gate_name(gate)} is waived by no reason"


def _gate_name(gate: GateResult) -> str:
    return " ".join(part for part in (gate.gate, gate.target, gate.slice) if part)


def _outcome(gate: GateResult) -> str:
    figure = "" if gate.value is None else f", {gate.value:.4g}"
    limit = "" if gate.threshold is None else f", threshold {gate.threshold:.4g}"
    return f"{gate.outcome}{' (waived)' if gate.waived else ''}{figure}{limit}"
