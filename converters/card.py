"""The model card: what a person should know before using the release (Mitchell et al. 2019)."""

import re
from collections.abc import Iterable, Sequence

from converters import card_limits, figures, plots
from converters.evidence import WHOLE, Confusion, Evidence
from edge_core.bundle.manifest import DatasetRecord, Manifest, VariantRecord

MAX_NAMED = 12
"""Classes up to which their shares are told."""


def render(evidence: Evidence) -> str:
    """Markdown text; pictures are named by paths relative to the bundle folder."""
    manifest = evidence.manifest
    sections = [
        _head(manifest),
        _exceptions(manifest),
        _purpose(manifest),
        _figures(evidence),
        _variants(evidence),
        _costs(manifest),
        _pictures(evidence),
        _limits(evidence),
        _origin(manifest),
    ]
    return "\n".join(line for section in sections if section for line in (*section, ""))


def plain(text: str) -> str:
    """Text for Markdown: one line that opens no table cell, tag, link or emphasis."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    kept = re.sub(r"([\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", kept)
    return " ".join(kept.split())


def _code(text: str) -> str:
    """A name as code: no marks inside it mean anything."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return f"`{kept.replace('`', ' ').replace('|', ' ')}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _head(manifest: Manifest) -> list[str]:
    return [f"# {manifest.model} {manifest.version}", "", plain(manifest.description)]


def _exceptions(manifest: Manifest) -> list[str]:
    """Gates that did not pass, before anything else."""
    bad = [gate for gate in manifest.gates if gate.outcome != "passed"]
    if not bad:
        return [f"All {len(manifest.gates)} gates passed; nothing was waived."]
    lines = [f"> **{len(bad)} of {len(manifest.gates)} gates did not pass.**", ">"]
    for gate in bad:
        where = [
            *([f"of {_code(gate.target)}"] if gate.target else []),
            *([f"on {_code(gate.slice)}"] if gate.slice else []),
        ]
        name = " ".join([f"**{plain(gate.gate)}**", *where])
        state = "no evidence" if gate.outcome == "no_evidence" else "failed"
        reason = figures.reason_of(gate, manifest.waivers)
        waived = f" **Waived:** {plain(reason)}" if gate.waived else " **Not waived.**"
        lines.append(f"> - {name}: {state} ({plain(figures.verdict_text(gate))}).{waived}")
    return ["## Read this first", "", *lines]


def _purpose(manifest: Manifest) -> list[str]:
    takes = "features" if manifest.input == "features" else "raw windows of samples"
    slices = [f"{plain(name)} ({plain(', '.join(v))})" for name, v in manifest.slices.items()]
    lines = [
        "## What it is for",
        "",
        f"- Takes {takes}, as defined by {_code('features.json')} "
        f"({_code(manifest.features_sha256[:16])}).",
        f"- Answers {_code(manifest.output.name)}: {plain(manifest.output.meaning)}.",
        f"- {len(manifest.output.classes)} classes: {plain(', '.join(manifest.output.classes))}.",
    ]
    if manifest.output.coordinates:
        lines.append(
            f"- Beside them an embedding of {manifest.output.coordinates} coordinates, which "
            "devices watch for drift and tell to nobody."
        )
    if slices:
        lines.append(f"- Looked at apart by {'; '.join(slices)}.")
    if manifest.privacy and manifest.privacy.epsilon is not None:
        lines.append(f"- Counts leave devices with noise: epsilon {manifest.privacy.epsilon:g}.")
    if manifest.privacy and manifest.privacy.redacted:
        names = plain(", ".join(manifest.privacy.redacted))
        lines.append(f"- Samples never carry {names}.")
    if manifest.label_delay_seconds:
        lines.append(f"- True labels come after about {_duration(manifest.label_delay_seconds)}.")
    return [
        *lines,
        "- It was not made for other inputs, devices or decisions than these.",
    ]


def _duration(seconds: float) -> str:
    """Seconds in the largest unit of which there are two or more."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:g} seconds"


def _figures(evidence: Evidence) -> list[str]:
    """Overall figures, then the main one by slice with the rows behind it."""
    manifest = evidence.manifest
    metric = figures.main_metric(manifest)
    sides = (manifest.metrics, evidence.floating, evidence.fallback)
    heads = ("this release", "fp32", "simple fallback")
    names = dict.fromkeys(name for side in sides for name in side)
    overall = [name for name in names if "/" not in name]
    lines = ["## How good it is", "", "On test rows that were kept from training.", ""]
    lines += _table(
        ("figure", *heads),
        ([plain(name), *(figures.share(side.get(name)) for side in sides)] for name in overall),
    )
    rows = []
    for name in (WHOLE, *_slice_names(manifest)):
        key = metric if name == WHOLE else f"{metric}/{name}"
        count = int(evidence.confusion[name].sum()) if name in evidence.confusion else 0
        value = manifest.metrics.get(key)
        interval = _interval(metric, value, evidence.confusion.get(name))
        rows.append(
            [
                plain(name),
                f"{count:,}" if count else "**none**" if value is None else "not counted",
                *(figures.share(side.get(key)) for side in sides),
                f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else figures.UNKNOWN,
            ]
        )
    lines += _classes(evidence)
    lines += ["", f"{plain(figures.metric_title(metric))} by slice; the gates watch it:", ""]
    return [*lines, *_table(("slice", "test rows", *heads, "95 % interval"), rows)]


def _classes(evidence: Evidence) -> list[str]:
    """How frequent each class is; none where nothing was counted or classes are many."""
    counts, names = evidence.confusion.get(WHOLE), evidence.manifest.output.classes
    if counts is None or not counts.sum() or len(names) > MAX_NAMED:
        return []
    totals = counts.sum(axis=1)
    shares = [
        f"{plain(name)} {100 * total / totals.sum():.1f} %"
        for name, total in zip(names, totals.tolist(), strict=True)
    ]
    return ["", f"Classes of the test rows: {', '.join(shares)}."]


def _interval(
    metric: str, value: float | None, counts: Confusion | None
) -> tuple[float, float] | None:
    """Interval of 95 % of the release's figure; none where no formula fits."""
    if value is None or counts is None or not counts.sum():
        return None
    if metric == "accuracy":
        return figures.wilson(value, int(counts.sum()))
    if metric == "roc_auc" and len(counts) == 2 and counts.sum(axis=1).all():
        first, other = counts.sum(axis=1).tolist()
        return figures.area_interval(value, first, other)
    return None


def _slice_names(manifest: Manifest) -> list[str]:
    return [f"{name}={value}" for name, values in manifest.slices.items() for value in values]


def _variants(evidence: Evidence) -> list[str]:
    manifest = evidence.manifest
    metric = figures.main_metric(manifest)
    heads = (
        "target",
        "scheme, calibration",
        "size (of fp32)",
        "numeric error",
        "top-1 agreement",
        metric,
        "worst slice",
        "ran on hardware",
    )
    thin = figures.thin_slices(manifest.gates)
    rows = []
    for variant in manifest.variants:
        worst = figures.worst_slice(variant.metrics, metric, thin)
        size = figures.size_text(figures.size_bytes(manifest, variant))
        rows.append(
            [
                _code(variant.target),
                plain(f"{figures.scheme(variant)}, {figures.calibration(variant)}"),
                f"{size} ({variant.size_ratio:.2f})",
                figures.number(variant.numeric_error),
                figures.share(variant.top1_agreement),
                figures.share(variant.metrics.get(metric)),
                f"{worst[1]:.3f} ({plain(worst[0])})" if worst else figures.UNKNOWN,
                _ran(variant),
            ]
        )
    note = (
        "Numeric error is the rms difference of the outputs from fp32, over their standard "
        "deviation. A dash means that nothing showed the figure."
    )
    return ["## Variants", "", *_table(heads, rows), "", note]


def _ran(variant: VariantRecord) -> str:
    if variant.ran_on_hardware:
        return f"yes: {plain(variant.measured_on)}"
    if variant.measured_on:
        return f"no: {plain(variant.measured_on)}"
    return "**no: compiled only**" if variant.compiled_by else "**no: never run**"


def _costs(manifest: Manifest) -> list[str]:
    budget = manifest.budget
    lines = [
        "## Cost and placement",
        "",
        f"Budget: {figures.time_text(budget.latency_us)} for one answer, "
        f"{figures.size_text(budget.memory_bytes)} of memory, "
        f"{figures.size_text(budget.size_bytes)} for a file.",
        "",
    ]
    rows = [
        [
            _code(variant.target),
            _latency(variant),
            _estimates(variant),
            plain(", ".join(f"{count} {place}" for place, count in variant.placement.items()))
            or "not known",
            f"**{plain('; '.join(variant.misplaced))}**" if variant.misplaced else "none",
            plain(", ".join(variant.float_layers)) or "none",
        ]
        for variant in manifest.variants
    ]
    heads = ("target", "latency", "estimates", "operators", "misplaced", "layers left in float")
    return [*lines, *_table(heads, rows)]


def _latency(variant: VariantRecord) -> str:
    found = figures.latency(variant)
    if found is None:
        return "not measured"
    if found.kind == "estimated":
        return f"{figures.time_text(found.us)}, **estimated** by {plain(found.by)}"
    by_batch = ", ".join(
        f"batch {plain(batch)}: {figures.time_text(us)}" for batch, us in variant.latency_us.items()
    )
    return f"{by_batch}; measured, {plain(found.by)}"


def _estimates(variant: VariantRecord) -> str:
    others = [
        f"{plain(name)} {figures.number(value)}"
        for name, value in variant.estimate.items()
        if name != "latency_us"
    ]
    return f"{', '.join(others)} ({plain(variant.estimated_by)})" if others else "none"


def _pictures(evidence: Evidence) -> list[str]:
    found = plots.planned(evidence)
    if not found:
        return []
    lines = [line for plot in found for line in ("", f"![{plot.caption}]({plot.path})")]
    return ["## Pictures", *lines]


def _limits(evidence: Evidence) -> list[str]:
    found = [plain(limit) for limit in card_limits.find(evidence)]
    return ["## Known limits", "", *(f"- {limit}" for limit in found or ["None was found."])]


def _origin(manifest: Manifest) -> list[str]:
    made = manifest.provenance
    dirty = {True: ", **with changes that are not in it**", False: "", None: ""}[made.code_dirty]
    commit = f"{_code(made.code_commit)}{dirty}" if made.code_commit else "**not known**"
    settings = ", ".join(f"{name} {figures.setting_text(v)}" for name, v in made.settings.items())
    tools = ", ".join(f"{name} {version}" for name, version in made.tools.items())
    lines = [
        "## What it was made of",
        "",
        *_table(
            ("role", "rows", "from", "time span", "sha256"),
            (_dataset(record) for record in manifest.datasets),
        ),
        "",
        *(f"- Data: {line}." for line in _data(manifest)),
        f"- Recipe: {plain(made.recipe)}, {_code(made.recipe_sha256[:16])}; seed {made.seed}; "
        f"settings: {plain(settings) or 'none'}.",
        f"- Code: commit {commit}.",
        f"- Tools: {plain(tools)}; on {plain(made.machine)}.",
        f"- Parent: {_parent(manifest)}.",
        f"- Teacher: {_teacher(manifest)}.",
    ]
    again = {None: "nobody has tried yet", True: "yes", False: "**no**"}[manifest.reproducible]
    return [*lines, f"- Rebuilt with the same bytes: {again}."]


def _dataset(record: DatasetRecord) -> list[str]:
    span = " to ".join(time for time in (record.first, record.last) if time)
    return [
        record.role,
        f"{record.rows:,}",
        f"{len(record.entities):,} groups" if record.entities else "requests of the log",
        plain(span) or "none given",
        _code(record.sha256[:16]),
    ]


def _data(manifest: Manifest) -> list[str]:
    """Where the rows are from, once for each source."""
    kept = manifest.snapshot
    if kept is None:
        named = dict.fromkeys((record.name, record.source) for record in manifest.datasets)
        return [f"{plain(name)}, from {plain(source)}; not kept" for name, source in named]
    rows = ", ".join(f"{count:,} {plain(name)}" for name, count in kept.rows.items())
    span = f"; {plain(kept.first)} to {plain(kept.last or '')}" if kept.first else ""
    return [
        f"{plain(kept.name)}, from {plain(kept.source)}; kept as snapshot {_code(kept.id[:16])} "
        f"with schema {_code(kept.schema_sha256[:16])}: {rows}{span}"
    ]


def _parent(manifest: Manifest) -> str:
    parent = manifest.parent
    return f"{plain(parent.name)} ({_code(parent.digest[:16])})" if parent else "none"


def _teacher(manifest: Manifest) -> str:
    teacher = manifest.teacher
    if teacher is None:
        return "none"
    known = "".join(f", {plain(name)} {value:.3f}" for name, value in teacher.metrics.items())
    return (
        f"{plain(teacher.name)} ({_code(teacher.digest[:16])}), temperature "
        f"{teacher.temperature:g}, weight of true labels {teacher.hard_weight:g}{known}"
    )
