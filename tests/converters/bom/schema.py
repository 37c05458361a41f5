"""The public schema of CycloneDX 1.6, as its own library ships it, checked by another library."""

import functools
import json
from importlib.resources import files
from typing import Any

import jsonschema_rs

BASE = "http://cyclonedx.org/schema/"


def check(bill: dict[str, Any]) -> None:
    """Raise where a document is not valid, or refers to what it does not hold."""
    _validator().validate(bill)
    main = bill["metadata"]["component"]
    known = {main["bom-ref"], *(part["bom-ref"] for part in bill["components"])}
    assert len(known) == len(bill["components"]) + 1, "two components have the same reference"
    used = {ref for entry in bill["dependencies"] for ref in entry.get("dependsOn", ())}
    used |= {entry["ref"] for entry in bill["dependencies"]}
    assert used <= known


@functools.cache
def _validator() -> Any:
    folder = files("cyclonedx.schema") / "_res"
    names = ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    parts = [(BASE + name, json.loads((folder / name).read_text("utf-8"))) for name in names]
    schema = json.loads((folder / "bom-1.6.SNAPSHOT.schema.json").read_text("utf-8"))
    return jsonschema_rs.Draft7Validator(schema, registry=jsonschema_rs.Registry(parts))
