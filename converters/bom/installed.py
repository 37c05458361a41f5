"""Which packages an extra of Serinus brings, in the environment that runs."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge_core.errors import InvalidConfiguration

PRODUCT = "serinus"
EXTRAS = ("agent", "server", "client", "convert", "grpc", "postgres", "oidc", "pkcs11", "dask")


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One package and what it needs."""

    distribution: Distribution
    needs: list[str]
    """Normalised names, sorted."""


def packages(extra: str, product: str = PRODUCT) -> dict[str, Package]:
    """Everything below one extra, the product itself included, by normalised name.

    Markers count for this machine's platform and Python.

    Raises:
        InvalidConfiguration: something is not installed.
    """
    asked: dict[str, set[str]] = {product: {extra}}
    found: dict[str, Package] = {}
    waiting = [product]
    while waiting:
        name = waiting.pop()
        here = _installed(name)
        needed = _needed(here, asked[name])
        found[name] = Package(distribution=here, needs=sorted({n for n, _ in needed}))
        for other, extras in needed:
            known = asked.get(other)
            if known is None or not extras <= known:
                asked.setdefault(other, set()).update(extras)
                waiting.append(other)
    return found


def _needed(here: Distribution, extras: set[str]) -> list[tuple[str, set[str]]]:
    parsed = (Requirement(text) for text in here.requires or ())
    return [
        (canonicalize_name(requirement.name), requirement.extras)
        for requirement in parsed
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})
    ]


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise InvalidConfiguration(
            f"{name} is not installed: make the environment with all extras first (make sbom)"
        ) from error
