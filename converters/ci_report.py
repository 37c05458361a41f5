"""Gates for machines: ``gates.json`` and JUnit XML. Written for a refused build, too."""

import re
from xml.etree import ElementTree as Tree

import msgspec

from converters import figures
from edge_core.bundle.manifest import GateResult, Manifest, VariantRecord, Waiver

GATES_VERSION = 1
REFUSED_BY_GATE = 3

_NOT_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Outside the characters of XML 1.0, section 2.2; carriage returns, too: parsers change them."""


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates said of one build, whether or not a bundle came of it."""

    model: str
    version: str
    gates: tuple[GateResult, ...] = ()
    variants: tuple[VariantRecord, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    digest: str | None = None
    """Of the bundle's manifest; none where no bundle was made."""
    refusal: str | None = None
    """The one line that the build ended with; none where it made a bundle."""
    refusal_code: int = REFUSED_BY_GATE
    """Exit code of the refusal: 1 wrong use, 2 bad input, 3 refused by a gate."""

    def __post_init__(self) -> None:
        if self.refusal is not None and self.digest is not None:
            raise ValueError("a refused build has no bundle")
        if not 1 <= self.refusal_code <= 255:
            raise ValueError(f"exit code {self.refusal_code} is not one of a refusal")

    @classmethod
    def of(cls, manifest: Manifest, digest: str) -> "Verdicts":
        """What a finished bundle says."""
        return cls(
            model=manifest.model,
            version=manifest.version,
            gates=tuple(manifest.gates),
            variants=tuple(manifest.variants),
            waivers=tuple(manifest.waivers),
            digest=digest,
        )

    @property
    def passed(self) -> bool:
        """Whether a bundle may be published."""
        return self.refusal is None and not figures.unwaived(self.gates)

    @property
    def exit_code(self) -> int:
        """What the build ends with."""
        return 0 if self.passed else self.refusal_code

    @property
    def stopped_elsewhere(self) -> bool:
        """Whether something other than a gate refused the build."""
        return self.refusal is not None and not figures.unwaived(self.gates)


def gates_json(verdicts: Verdicts) -> bytes:
    """JSON as ``docs/ci.md`` describes it: sorted keys, newline at the end.

    Figures that are not finite are null, as JSON has no word for them.
    """
    document = {
        "schema_version": GATES_VERSION,
        "model": verdicts.model,
        "version": verdicts.version,
        "release": f"{verdicts.model}@{verdicts.version}",
        "digest": verdicts.digest,
        "passed": verdicts.passed,
        "exit_code": verdicts.exit_code,
        "refusal": verdicts.refusal,
        "gates": [_gate(gate, verdicts) for gate in verdicts.gates],
        "variants": [_variant(variant) for variant in verdicts.variants],
    }
    data = msgspec.json.encode(_encodable(document), order="sorted")
    return msgspec.json.format(data, indent=2) + b"\n"


def _gate(gate: GateResult, verdicts: Verdicts) -> dict[str, object]:
    reason = figures.reason_of(gate, verdicts.waivers)
    return msgspec.structs.asdict(gate) | {"waiver": reason or None}


def _variant(variant: VariantRecord) -> dict[str, object]:
    """What CI can draw over time; long lists stay in the manifest."""
    return {
        "target": variant.target,
        "scheme": figures.scheme(variant),
        "calibration": figures.calibration(variant),
        "numeric_error": variant.numeric_error,
        "top1_agreement": variant.top1_agreement,
        "size_ratio": variant.size_ratio,
        "metrics": variant.metrics,
        "latency_us": variant.latency_us,
        "measured_on": variant.measured_on,
        "ran_on_hardware": variant.ran_on_hardware,
        "estimate": variant.estimate,
        "estimated_by": variant.estimated_by,
        "misplaced": variant.misplaced,
        "float_layers": variant.float_layers,
    }


def _encodable(value: object) -> object:
    """The same value with half characters (lone surrogates) made visible."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {str(_encodable(key)): _encodable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(inner) for inner in value]
    return value


def junit_xml(verdicts: Verdicts) -> bytes:
    """JUnit XML as GitLab, Jenkins and GitHub's actions read it.

    One suite for each target and one for the whole release; one case for each gate: failed and
    without evidence are failures, waived is skipped. A refusal by anything but a gate is a case
    of its own with an error.
    """
    release = f"{verdicts.model}@{verdicts.version}"
    root = Tree.Element("testsuites", name=_xml(release))
    for target in dict.fromkeys(gate.target for gate in verdicts.gates):
        suite = Tree.SubElement(root, "testsuite", name=_xml(f"{release} {target or 'release'}"))
        for gate in verdicts.gates:
            if gate.target == target:
                _case(suite, gate, verdicts)
    if verdicts.stopped_elsewhere or not verdicts.gates:
        _build(root, release, verdicts.refusal)
    for suite in root:
        _count(suite, [suite])
    _count(root, list(root))
    Tree.indent(root)
    return bytes(Tree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: Tree.Element, gate: GateResult, verdicts: Verdicts) -> None:
    place = ".".join(part for part in (verdicts.model, gate.target or "release") if part)
    name = gate.gate + (f"[{gate.slice}]" if gate.slice else "")
    case = Tree.SubElement(suite, "testcase", classname=_xml(place), name=_xml(name), time="0")
    said = figures.verdict_text(gate)
    if gate.outcome == "passed":
        Tree.SubElement(case, "system-out").text = _xml(said)
    elif gate.waived:
        reason = figures.reason_of(gate, verdicts.waivers) or "no reason is recorded"
        message = f"{figures.outcome_text(gate)}: {said}; waived because: {reason}"
        Tree.SubElement(case, "skipped", message=_xml(message))
    else:
        message = f"{figures.outcome_text(gate)}: {said}"
        failure = Tree.SubElement(case, "failure", message=_xml(message), type=gate.outcome)
        failure.text = _xml(f"gate {name} of {gate.target or 'the release'}: {message}")


def _build(root: Tree.Element, release: str, refusal: str | None) -> None:
    """A case for the build itself, so that no report is empty and no refusal is silent."""
    suite = Tree.SubElement(root, "testsuite", name=_xml(f"{release} build"))
    case = Tree.SubElement(suite, "testcase", classname=_xml(release), name="build", time="0")
    if refusal is not None:
        error = Tree.SubElement(case, "error", message=_xml(refusal), type="refused")
        error.text = _xml(refusal)


def _count(element: Tree.Element, suites: list[Tree.Element]) -> None:
    """Write the totals that readers expect."""
    cases = [case for suite in suites for case in suite.iter("testcase")]
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", "0")


def _xml(text: str) -> str:
    """Text that XML 1.0 may hold: other characters are shown as escapes."""
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
