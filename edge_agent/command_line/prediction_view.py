"""Which release gave an answer, and how: one entry of the prediction log for a person or a machine.

The log has a line for each batch; what rows of a batch do not share stands there as counts.
"""

import msgspec

from edge_agent.command_line.status_view import moment, printable
from edge_agent.serving.prediction_log import Line


def page(prediction_id: str, line: Line) -> str:
    """A line for each fact."""
    facts = {
        "prediction": prediction_id,
        "release": f"{line.model}@{line.version}",
        "digest": line.digest,
        "target": line.target,
        "runtime": line.runtime,
        "served by": _served_by(line),
        "arm": line.arm,
        "rollout": line.rollout or "-",
        "slices": ", ".join(f"{name}={value}" for name, value in line.slices.items()) or "-",
        "when": moment(line.at_us // 1000),
        "asked by": _asked_by(line),
        "answered with": f"{line.rows - 1} other rows" if line.rows > 1 else "no other row",
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {printable(text)}" for name, text in facts.items())


def json(prediction_id: str, line: Line) -> str:
    """One object: the log's line, with the id and by whom it was served."""
    known = {field: getattr(line, field) for field in line.__struct_fields__}
    found = {"id": prediction_id, **known, "served_by": line.served_by}
    return msgspec.json.encode(found).decode()


def _served_by(line: Line) -> str:
    if line.cause:
        return f"{line.served_by}, {line.cause}"
    if line.cached == line.rows:
        return "cache"
    return f"model, or cache for {line.cached} of {line.rows} rows" if line.cached else "model"


def _asked_by(line: Line) -> str:
    named = sum(line.consumers.values())
    asked = list(line.consumers.items())
    if len(asked) == 1 and named == line.rows:
        return asked[0][0]
    if named < line.rows:
        asked.append(("nobody known", line.rows - named))
    return " or ".join(f"{name} ({rows} of {line.rows} rows)" for name, rows in asked)
