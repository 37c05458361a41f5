"""Bills of the product: whole, by the public schema, and under permissive licences only."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from converters.bom import document, installed, licences, product
from converters.bom.installed import EXTRAS
from edge_core.errors import InvalidConfiguration
from tests.converters.bom.schema import check

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bills() -> dict[str, dict[str, Any]]:
    return {extra: product.of_extra(extra) for extra in EXTRAS}


def names(bill: dict[str, Any]) -> set[str]:
    return {component["name"].lower() for component in bill["components"]}


def test_every_extra_that_people_run_has_a_bill() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(declared["optional-dependencies"]) - {"bench", "dev"}


def test_each_extra_has_what_it_declares_and_what_that_needs(
    bills: dict[str, dict[str, Any]],
) -> None:
    assert {"onnxruntime", "paho-mqtt", "tuf", "securesystemslib"} <= names(bills["agent"])
    assert {"fastapi", "starlette", "sqlalchemy"} <= names(bills["server"])
    assert {"torch", "onnx", "sympy"} <= names(bills["convert"])
    assert not {"torch", "onnx", "fastapi"} & names(bills["agent"])
    assert not {"torch", "onnx", "onnxruntime"} & names(bills["server"])


def test_every_bill_is_valid_by_the_public_schema(bills: dict[str, dict[str, Any]]) -> None:
    for bill in bills.values():
        check(bill)


def test_every_component_has_version_licence_and_package_url(
    bills: dict[str, dict[str, Any]],
) -> None:
    for extra, bill in bills.items():
        assert bill["metadata"]["component"]["name"] == f"serinus[{extra}]"
        for component in bill["components"]:
            assert component["version"]
            assert component["purl"].startswith("pkg:pypi/"), component
            assert component["licenses"], f"nothing says what {component['name']} is under"


def test_who_needs_whom_is_told(bills: dict[str, dict[str, Any]]) -> None:
    needs = {
        entry["ref"].partition("@")[0]: {other.partition("@")[0] for other in entry["dependsOn"]}
        for entry in bills["server"]["dependencies"]
        if "dependsOn" in entry
    }
    assert "pkg:pypi/starlette" in needs["pkg:pypi/fastapi"]
    assert "pkg:pypi/fastapi" in needs["pkg:generic/serinus"]


def test_all_licences_are_permissive_but_those_of_named_exceptions(
    bills: dict[str, dict[str, Any]],
) -> None:
    others = {}
    for extra in EXTRAS:
        for name, package in installed.packages(extra).items():
            text = licences.expression(package.distribution)
            if text is None or not licences.is_permissive(text):
                others[name] = text
    assert others.keys() == licences.EXCEPTIONS.keys(), others


@pytest.mark.parametrize(
    ("text", "permissive"),
    [
        ("MIT", True),
        ("EPL-2.0 OR BSD-3-Clause", True),
        ("MPL-2.0 AND MIT", False),
        ("GPL-3.0-only", False),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT AND (GPL-3.0-only OR ISC)", True),
        ("no licence at all", False),
    ],
)
def test_a_choice_is_ours_and_a_sum_is_not(text: str, permissive: bool) -> None:
    assert licences.is_permissive(text) == permissive


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lonely-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: lonely\nVersion: 1\nProvides-Extra: more\n"
        "Requires-Dist: no-such-package; extra == 'more'\n"
        "Requires-Dist: not-for-us; sys_platform == 'none'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert set(installed.packages("less", "lonely")) == {"lonely"}
    with pytest.raises(InvalidConfiguration, match="no-such-package is not installed"):
        installed.packages("more", "lonely")


def test_the_same_environment_gives_the_same_bytes(bills: dict[str, dict[str, Any]]) -> None:
    again = document.as_bytes(product.of_extra("agent"))
    assert again == document.as_bytes(bills["agent"])


def test_the_command_writes_a_file_for_each_extra(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "converters.bom"]
    done = subprocess.run(
        [*command, str(tmp_path / "sbom")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "sbom").iterdir()}
    assert written == {f"{extra}.cdx.json" for extra in EXTRAS}
    check(json.loads((tmp_path / "sbom" / "agent.cdx.json").read_bytes()))
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*command, str(tmp_path / "file")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
