"""Which licence a package is under, as an SPDX expression, and whether it is permissive."""

from importlib.metadata import Distribution

from license_expression import ExpressionError, LicenseWithExceptionSymbol, get_spdx_licensing
from packaging.utils import canonicalize_name

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "PSF-2.0",
        "Zlib",
    }
)
EXCEPTIONS = {
    "certifi": "MPL-2.0 asks for the sources of changed files only; its list is used unchanged",
    "tqdm": "MPL-2.0 asks for the sources of changed files only; it is used unchanged, while "
    "converting",
}
"""Packages that may be under another licence, and why."""

_STATED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "CC0": "CC0-1.0",
    "MIT License": "MIT",
}
"""What packages write that predate licence expressions."""
_CLASSIFIED = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_LOOKED_UP = {
    "click-default-group": "BSD-3-Clause",
    "tflite-micro": "Apache-2.0",
    "torchao": "BSD-3-Clause",
}
"""Packages whose metadata does not say, or says two things, by what their sources say."""

_SPDX = get_spdx_licensing()


def expression(distribution: Distribution) -> str | None:
    """SPDX expression of an installed package; none where nothing says."""
    metadata = distribution.metadata
    stated = (_field(distribution, "License") or "").strip()
    classified = (
        _CLASSIFIED.get(entry.rpartition(" :: ")[2])
        for entry in metadata.get_all("Classifier") or ()
        if entry.startswith("License ::")
    )
    candidates = (
        _LOOKED_UP.get(canonicalize_name(metadata["Name"])),
        _field(distribution, "License-Expression"),
        _STATED.get(stated),
        stated if "\n" not in stated else None,
        next((found for found in classified if found), None),
    )
    return next((text for text in candidates if text and _parsed(text) is not None), None)


def _field(distribution: Distribution, name: str) -> str | None:
    return next(iter(distribution.metadata.get_all(name) or ()), None)


def is_permissive(text: str) -> bool:
    """Whether an SPDX expression lets one choose permissive licences only."""
    parsed = _parsed(text)
    return parsed is not None and _holds(parsed)


def _holds(part: object) -> bool:
    arguments = getattr(part, "args", ())
    if isinstance(part, LicenseWithExceptionSymbol):
        return part.license_symbol.key in PERMISSIVE  # an exception only gives more
    if not arguments:
        return getattr(part, "key", "") in PERMISSIVE
    return (any if type(part).__name__ == "OR" else all)(map(_holds, arguments))


def _parsed(text: str) -> object | None:
    try:
        found: object = _SPDX.parse(text, validate=True)
    except ExpressionError:
        return None
    return found
