"""The end of every build: what failed a gate is refused, and CI is told either way."""

from pathlib import Path

import msgspec

from converters import ci_report, gates
from converters.ci_report import Verdicts
from converters.refusal import RefusedByGate
from edge_core import durable


def settle(verdicts: Verdicts, reports: Path | None) -> None:
    """Write ``gates.json`` and ``junit.xml`` where asked, then refuse what failed.

    Raises:
        RefusedByGate: a gate neither passed nor was waived.
    """
    refusal: RefusedByGate | None = None
    try:
        gates.enforce(verdicts.gates)
    except RefusedByGate as refused:
        refusal = refused
        verdicts = msgspec.structs.replace(verdicts, refusal=str(refused))
    if reports is not None:
        reports.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(reports / "gates.json", ci_report.gates_json(verdicts))
        durable.write_bytes(reports / "junit.xml", ci_report.junit_xml(verdicts))
    if refusal is not None:
        raise refusal
