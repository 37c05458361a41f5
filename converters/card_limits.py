"""Finds what a release's evidence does not show. Says it plainly; judges nothing."""

from collections.abc import Iterator

from converters import figures
from converters.evidence import WHOLE, Evidence

FEW_ROWS = 30
"""Below so many rows a share says little: its 95 % interval is wider than 0.3."""


def find(evidence: Evidence) -> list[str]:
    """One sentence for each known limit; plain text."""
    return [*_slices(evidence), *_classes(evidence), *_variants(evidence), *_making(evidence)]


def _slices(evidence: Evidence) -> Iterator[str]:
    manifest = evidence.manifest
    for name, values in manifest.slices.items():
        for value in values:
            key = f"{name}={value}"
            counts = evidence.confusion.get(key)
            rows = 0 if counts is None else int(counts.sum())
            if counts is None and any(figure.endswith(f"/{key}") for figure in manifest.metrics):
                continue  # there were rows; only their confusion was not counted
            if rows == 0:
                yield f"No test row is from {key}: nothing is known about it."
            elif rows < FEW_ROWS:
                yield f"Only {rows} test rows are from {key}: its figures say little."


def _classes(evidence: Evidence) -> Iterator[str]:
    counts = evidence.confusion.get(WHOLE)
    if counts is None:
        yield "No confusion of classes was counted."
        return
    classes = evidence.manifest.output.classes
    unseen = [name for name, row in zip(classes, counts.sum(axis=1), strict=True) if not row]
    never = [name for name, column in zip(classes, counts.sum(axis=0), strict=True) if not column]
    if unseen:
        yield f"No test row is of class {', '.join(unseen)}."
    if never:
        yield f"On the test set it never answers {', '.join(never)}."


def _variants(evidence: Evidence) -> Iterator[str]:
    variants = evidence.manifest.variants
    unrun = [v.target for v in variants if figures.where_run(v) == "not run"]
    simulated = [v.target for v in variants if figures.where_run(v) == "simulated"]
    estimated = [v.target for v in variants if (t := figures.latency(v)) and t.kind == "estimated"]
    untimed = [v.target for v in variants if figures.latency(v) is None]
    misplaced = [v.target for v in variants if v.misplaced]
    if unrun:
        yield f"Compiled but never run: {', '.join(unrun)}."
    if simulated:
        yield f"Run, but not on the target's own hardware: {', '.join(simulated)}."
    if estimated:
        yield f"Latency is the tool's estimate, not a measurement: {', '.join(estimated)}."
    if untimed:
        yield f"Latency is not known: {', '.join(untimed)}."
    if misplaced:
        yield f"Some operators do not run where the target wants them: {', '.join(misplaced)}."


def _making(evidence: Evidence) -> Iterator[str]:
    manifest = evidence.manifest
    if manifest.provenance.code_commit is None:
        yield "It was built from code under no version control."
    elif manifest.provenance.code_dirty:
        yield "It was built from code with changes that are not in the named commit."
    if manifest.parent is None:
        yield "It was compared with no earlier release."
    if not any(record.first for record in manifest.datasets):
        yield "The data has no wall-clock times: nothing is known about change over time."
    for record in manifest.datasets:
        if record.role == "test" and record.first and record.last:
            yield (
                f"Tested on {record.first[:10]} to {record.last[:10]}: nothing here shows how it "
                "ages after that."
            )
    if manifest.reproducible is False:
        yield "A rebuild did not give the same bytes."
