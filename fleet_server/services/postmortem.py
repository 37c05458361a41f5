"""An incident as a Markdown document: what is known is filled in, what people know is asked."""

from collections.abc import Sequence
from datetime import UTC, datetime

from fleet_server.services.impact import Impact
from fleet_server.storage.incidents import Entry, StoredIncident

QUESTIONS = (
    "What was the cause, and what made it possible?",
    "Why did it reach devices: which gate, test or slice would have stopped it?",
    "What went well? Where were we lucky?",
    "What will be done, by whom, until when?",
)


def write(row: StoredIncident, timeline: Sequence[Entry], impact: Impact) -> str:
    """The same document for the same data."""
    parts = [
        f"# Incident {row.incident}: {_plain(row.title)}",
        _summary(row),
        "## Impact",
        "\n".join(f"- {line}" for line in _impact(impact)),
        "## Timeline (UTC)",
        _table(timeline),
        "## Evidence",
        _evidence(impact),
        *(f"## {question}\n\n_To be written._" for question in QUESTIONS),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(row: StoredIncident) -> str:
    told = [
        ("State", row.state),
        ("Kind", row.kind),
        ("Model", row.model or "none"),
        ("Began", _when(row.began_ms)),
        ("Opened", _when(row.opened_ms)),
        ("Mitigated", _when(row.mitigated_ms)),
        ("Resolved", _when(row.resolved_ms)),
        ("Looked after by", row.owner or "nobody yet"),
        ("Cause", row.cause or "not known yet"),
    ]
    lines = [f"| {name} | {_plain(value)} |" for name, value in told]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _impact(impact: Impact) -> list[str]:
    mitigated = impact.seconds_to_mitigate
    lines = [
        f"Seen after {_span(impact.seconds_to_detect)}.",
        "It goes on." if mitigated is None else f"Over {_span(mitigated)} after it was seen.",
    ]
    if impact.devices is not None:
        lines.append(
            f"The candidate answered {impact.rows:,} rows on {impact.devices} devices; "
            f"{impact.errors:,} failed."
        )
    lines += [
        f"{one.slice}: {one.difference:+.1%} on {one.rows:,} labelled rows "
        f"(evidence {one.e_worse:.3g})."
        for one in impact.hurt
    ]
    return lines


def _table(timeline: Sequence[Entry]) -> str:
    rows = [
        f"| {_when(entry.at_ms)} | {_plain(entry.source)} | {_plain(entry.subject)} | "
        f"{_plain(entry.text)} |"
        for entry in timeline
    ]
    return "\n".join(["| When | Who | What about | What |", "| --- | --- | --- | --- |", *rows])


def _evidence(impact: Impact) -> str:
    if impact.verdict is None:
        return "No verdict decided this."
    return (
        f"Verdict {impact.verdict} decided. It is stored with everything that it looked at:\n\n"
        f"    serinus verdict replay {impact.verdict}"
    )


def _when(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "not yet"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def _plain(text: str) -> str:
    """In one cell of a table, whatever a device or a person wrote."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
