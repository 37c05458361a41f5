"""Bill of materials of one extra: every package with version, licence and package URL."""

from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.component import Component, ComponentType
from packageurl import PackageURL

from converters.bom import document, licences
from converters.bom.installed import PRODUCT, Package, packages


def of_extra(extra: str) -> dict[str, Any]:
    """The document for ``serinus[extra]`` as it is installed here.

    Raises:
        InvalidConfiguration: something that it needs is not installed.
    """
    found = packages(extra)
    components = {name: _component(package) for name, package in found.items() if name != PRODUCT}
    components[PRODUCT] = _serinus(found[PRODUCT], extra)
    bom = document.bill(
        components[PRODUCT], [part for name, part in components.items() if name != PRODUCT]
    )
    for name, package in found.items():
        bom.register_dependency(components[name], [components[other] for other in package.needs])
    return document.as_dict(bom)


def _serinus(package: Package, extra: str) -> Component:
    version = package.distribution.version
    url = PackageURL(type="generic", name=PRODUCT, version=version, subpath=extra)
    made = Component(
        type=ComponentType.APPLICATION,
        name=f"{PRODUCT}[{extra}]",
        version=version,
        purl=url,
        bom_ref=url.to_string(),
    )
    return _licensed(made, package)


def _component(package: Package) -> Component:
    distribution = package.distribution
    return _licensed(document.library(distribution.metadata["Name"], distribution.version), package)


def _licensed(component: Component, package: Package) -> Component:
    text = licences.expression(package.distribution)
    if text is not None:
        component.licenses.add(LicenseFactory().make_from_string(text))
    return component
