"""What CI reads of a build, refused or not."""

import json
from xml.etree import ElementTree as Tree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.ci_report import Verdicts, gates_json, junit_xml
from edge_core.bundle.manifest import GateResult, Waiver
from tests.converters.sample_evidence import GATES, manifest

FAILED = GateResult(
    gate="numeric_error", outcome="failed", target="mcu-tflm", value=0.09, threshold=0.05
)
TEXT = st.text(st.characters(codec=None), max_size=40)


def parsed(verdicts: Verdicts) -> Tree.Element:
    return Tree.fromstring(junit_xml(verdicts))


def test_a_finished_bundle_passes_with_its_digest_and_figures() -> None:
    made = manifest()
    found = json.loads(gates_json(Verdicts.of(made, "ab" * 32)))
    assert (found["schema_version"], found["release"]) == (1, "watch-activity@1.3.0")
    assert (found["passed"], found["exit_code"], found["digest"]) == (True, 0, "ab" * 32)
    assert found["refusal"] is None
    assert [gate["outcome"] for gate in found["gates"]] == [gate.outcome for gate in GATES]
    waived = [gate for gate in found["gates"] if gate["waived"]]
    assert [gate["waiver"] for gate in waived] == [waiver.reason for waiver in made.waivers]
    assert (waived[0]["slice"], waived[0]["rows"]) == ("hand=both", 4)
    by_target = {variant["target"]: variant for variant in found["variants"]}
    assert len(by_target) == len(made.variants)
    assert by_target["npu-ethos-u55-128"]["estimate"]["latency_us"] == 212.0
    assert by_target["npu-qnn-v75"]["numeric_error"] is None


def test_junit_has_a_suite_for_each_target_and_a_case_for_each_gate() -> None:
    root = parsed(Verdicts.of(manifest(), "ab" * 32))
    assert [suite.get("name") for suite in root] == [
        "watch-activity@1.3.0 cpu-x86_64-ort",
        "watch-activity@1.3.0 gpu-webgpu-ort",
        "watch-activity@1.3.0 release",
    ]
    cases = list(root.iter("testcase"))
    assert len(cases) == len(GATES)
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(GATES)
    totals = [root.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert totals == ["5", "0", "0", "2"]
    skipped = [case.find("skipped") for case in cases if case.find("skipped") is not None]
    assert "watch on both arms is a rare study" in str(skipped[0].get("message"))  # type: ignore[union-attr]  # filtered above
    assert sum(int(suite.get("tests", "0")) for suite in root) == len(GATES)


@pytest.mark.parametrize("outcome", ["failed", "no_evidence"])
def test_a_refused_build_has_failures_and_no_digest(outcome: str) -> None:
    gate = GateResult(gate="numeric_error", outcome=outcome, target="mcu-tflm", detail="why")  # type: ignore[arg-type]  # one of its literals
    verdicts = Verdicts(model="m", version="1.0.0", gates=(gate, *GATES), refusal="gate failed")
    found = json.loads(gates_json(verdicts))
    assert (found["passed"], found["exit_code"], found["digest"]) == (False, 3, None)
    assert found["refusal"] == "gate failed"
    root = parsed(verdicts)
    assert (root.get("failures"), root.get("errors")) == ("1", "0")
    failure = next(root.iter("failure"))
    assert failure.get("type") == outcome
    assert "why" in str(failure.get("message"))


def test_a_build_that_stopped_before_its_gates_is_an_error() -> None:
    verdicts = Verdicts(model="m", version="1.0.0", refusal="no such file", refusal_code=2)
    assert json.loads(gates_json(verdicts))["exit_code"] == 2
    root = parsed(verdicts)
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    assert next(root.iter("error")).text == "no such file"


def test_open_gates_never_count_as_passed() -> None:
    assert not Verdicts(model="m", version="1.0.0", gates=(FAILED,)).passed


def test_a_refused_build_cannot_have_a_bundle() -> None:
    with pytest.raises(ValueError, match="no bundle"):
        Verdicts(model="m", version="1.0.0", refusal="no", digest="ab" * 32)


def test_the_same_verdicts_give_the_same_bytes() -> None:
    verdicts = Verdicts.of(manifest(), "ab" * 32)
    assert gates_json(verdicts) == gates_json(Verdicts.of(manifest(), "ab" * 32))
    assert junit_xml(verdicts) == junit_xml(Verdicts.of(manifest(), "ab" * 32))


def test_figures_that_are_not_finite_are_null() -> None:
    gate = GateResult(gate="numeric_error", outcome="failed", value=float("nan"), threshold=0.05)
    found = json.loads(gates_json(Verdicts(model="m", version="1.0.0", gates=(gate,))))
    assert found["gates"][0]["value"] is None


@given(name=TEXT, target=TEXT, slice_=TEXT, detail=TEXT, reason=TEXT, refusal=TEXT)
def test_hostile_text_stays_text(
    name: str, target: str, slice_: str, detail: str, reason: str, refusal: str
) -> None:
    def gate(waived: bool) -> GateResult:
        return GateResult(
            gate=name,
            outcome="failed",
            target=target,
            slice=slice_,
            detail=detail,
            waived=waived,
        )

    verdicts = Verdicts(
        model="m",
        version="1.0.0",
        gates=(gate(True), gate(False)),
        waivers=(Waiver(gate=name, slice=slice_, reason=reason),),
        refusal=refusal,
    )
    cases = list(parsed(verdicts).iter("testcase"))
    assert [[child.tag for child in case] for case in cases] == [["skipped"], ["failure"]]
    found = json.loads(gates_json(verdicts))
    assert len(found["gates"]) == 2
    if name.isprintable() and slice_.isprintable():
        assert cases[0].get("name") == name + (f"[{slice_}]" if slice_ else "")
        assert found["gates"][0]["gate"] == name


@given(refusal=TEXT)
def test_a_hostile_refusal_is_told(refusal: str) -> None:
    verdicts = Verdicts(model="m", version="1.0.0", refusal=refusal, refusal_code=2)
    error = next(parsed(verdicts).iter("error"))
    if refusal.isprintable():
        assert error.get("message") == refusal
    assert json.loads(gates_json(verdicts))["refusal"] is not None
