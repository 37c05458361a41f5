"""Bill of materials of a bundle: the model with its card, its files, its data, its tools."""

from collections.abc import Iterator
from typing import Any

from cyclonedx.model.component import Component, ComponentType
from packageurl import PackageURL

from converters import attesting
from converters.bom import document
from edge_core.bundle.manifest import DatasetRecord, Manifest
from edge_core.release import ReleaseRef


def of_bundle(manifest: Manifest, ref: ReleaseRef) -> dict[str, Any]:
    """The document; all of it is the manifest's, so the same bundle gives the same bytes."""
    model = _model(manifest, ref)
    files, data, tools = _files(manifest), _data(manifest), _tools(manifest)
    bom = document.bill(model, [*files, *data, *tools])
    bom.register_dependency(model, [*files, *data, *tools])
    made = document.as_dict(bom)
    # The library has no model cards yet.
    made["metadata"]["component"]["modelCard"] = _card(manifest, data)
    return made


def _model(manifest: Manifest, ref: ReleaseRef) -> Component:
    url = PackageURL(type="generic", name=manifest.model, version=manifest.version)
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=manifest.model,
        version=manifest.version,
        description=manifest.description or None,
        hashes=[document.sha256(ref.digest)],
        purl=url,
        bom_ref=f"{url.to_string()}#{ref.digest}",
    )


def _files(manifest: Manifest) -> list[Component]:
    return [
        Component(
            type=ComponentType.FILE,
            name=entry.path,
            hashes=[document.sha256(entry.sha256)],
            bom_ref=f"file:{entry.path}",
        )
        for entry in manifest.files
    ]


def _data(manifest: Manifest) -> list[Component]:
    return [
        Component(
            type=ComponentType.DATA,
            name=record.name,
            description=_about(record),
            hashes=[document.sha256(record.sha256)],
            bom_ref=f"data:{number}:{record.role}:{record.name}",
        )
        for number, record in enumerate(manifest.datasets)
    ]


def _about(record: DatasetRecord) -> str:
    span = f", {record.first} to {record.last}" if record.first and record.last else ""
    return f"{record.role}: {record.rows} rows from {record.source}{span}"


def _tools(manifest: Manifest) -> list[Component]:
    return [
        Component(
            type=ComponentType.APPLICATION,
            name=name,
            version=version,
            bom_ref=attesting.package_url(name, version),
            purl=PackageURL.from_string(attesting.package_url(name, version)),
        )
        if name in attesting.NO_PACKAGES
        else document.library(name, version, built_with=True)
        for name, version in sorted(manifest.provenance.tools.items())
    ]


def _card(manifest: Manifest, data: list[Component]) -> dict[str, Any]:
    classes = ", ".join(manifest.output.classes)
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "classification",
            "datasets": [{"ref": component.bom_ref.value} for component in data],
            "inputs": [{"format": manifest.input}],
            "outputs": [{"format": f"{manifest.output.name}, float32: {classes}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_figures(manifest))},
        "considerations": {
            "useCases": [text for text in (manifest.description, manifest.output.meaning) if text],
            "technicalLimitations": list(_limitations(manifest)),
            "performanceTradeoffs": list(_tradeoffs(manifest)),
        },
    }


def _figures(manifest: Manifest) -> Iterator[dict[str, str]]:
    yield from _metrics(manifest.metrics, "")
    for variant in manifest.variants:
        yield from _metrics(variant.metrics, f" on {variant.target}")


def _metrics(figures: dict[str, float], where: str) -> Iterator[dict[str, str]]:
    """``accuracy/side=left`` is the accuracy of a slice."""
    for name, value in sorted(figures.items()):
        kind, _, part = name.partition("/")
        figure = {"type": f"{kind}{where}", "value": repr(value)}
        yield figure | ({"slice": part} if part else {})


def _limitations(manifest: Manifest) -> Iterator[str]:
    for waiver in manifest.waivers:
        of = f" of {waiver.slice}" if waiver.slice else ""
        yield f"gate {waiver.gate}{of} was waived: {waiver.reason}"


def _tradeoffs(manifest: Manifest) -> Iterator[str]:
    for variant in manifest.variants:
        error = variant.numeric_error
        loss = "was not compared with fp32" if error is None else f"has numeric error {error:.3g}"
        yield f"{variant.target} {loss}, {variant.size_ratio:.3g} of the size of fp32"
