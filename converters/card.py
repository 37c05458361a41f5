"""The model card: what a person should know before using the release."""

from edge_core.bundle.manifest import Manifest


def render(manifest: Manifest) -> str:
    """Markdown text."""
    lines = [
        f"# {manifest.model} {manifest.version}",
        "",
        manifest.description,
        "",
        f"Answers: {manifest.output.meaning}.",
        "",
        "| figure on the test set | value |",
        "| --- | --- |",
        *(f"| {name} | {value:.3f} |" for name, value in manifest.metrics.items()),
        "",
        "| target | numeric error | top-1 agreement | size ratio | us per row |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {v.target} | {v.numeric_error:.4f} | {v.top1_agreement:.3f} | {v.size_ratio:.2f} "
            f"| {v.latency_us['1']:.0f} |"
            for v in manifest.variants
        ),
        "",
        "## Data",
        "",
        *(f"- {d.role}: {d.rows} rows, sha256 {d.sha256[:16]}" for d in manifest.datasets),
        "",
        "## Waivers",
        "",
        *(f"- {w.gate} {w.slice or ''}: {w.reason}" for w in manifest.waivers),
        *([] if manifest.waivers else ["None."]),
        "",
    ]
    return "\n".join(lines)
