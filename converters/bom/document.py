"""What all our bills of materials have in common: components, serial numbers, bytes."""

import json
import uuid
from collections.abc import Iterable
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

NAMESPACE = uuid.UUID("0f6c7c5e-6f0f-5a4c-9a66-6d1f3a1f7a10")
"""Of serial numbers: the same content gives the same number."""


def library(name: str, version: str, *, built_with: bool = False) -> Component:
    """A Python package; ``built_with``: it shaped the bytes and is not among them."""
    url = PackageURL(type="pypi", name=name, version=version)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=url,
        bom_ref=url.to_string(),
        scope=ComponentScope.EXCLUDED if built_with else ComponentScope.REQUIRED,
    )


def sha256(digest: str) -> HashType:
    """A digest as CycloneDX writes it."""
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def bill(main: Component, components: Iterable[Component]) -> Bom:
    """A bill of one thing; its own time is left out, so that the same thing gives the same bytes.

    ``main.bom_ref`` decides the serial number.
    """
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, str(main.bom_ref.value)))
    bom.metadata.component = main
    bom.components.update(components)
    return bom


def as_dict(bom: Bom) -> dict[str, Any]:
    """The document, CycloneDX 1.6."""
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    return document


def as_bytes(document: dict[str, Any]) -> bytes:
    """What is written and printed."""
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
