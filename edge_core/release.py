"""The identity of a release."""

import re
from typing import Self

import msgspec

# \Z, because $ also matches before a newline; [0-9], because \d also matches other scripts' digits.
MODEL_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}\Z"
VERSION_PATTERN = r"^(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\Z"
SHA256_PATTERN = r"^[0-9a-f]{64}\Z"


class ReleaseRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Model name and version, pinned by the sha256 of the manifest's bytes."""

    model: str
    version: str
    digest: str

    def __post_init__(self) -> None:
        for value, pattern, what in (
            (self.model, MODEL_PATTERN, "model name"),
            (self.version, VERSION_PATTERN, "version"),
            (self.digest, SHA256_PATTERN, "manifest digest"),
        ):
            if not re.match(pattern, value):
                raise ValueError(f"{what} {value!r} does not match {pattern}")

    @property
    def name(self) -> str:
        """``model@version``, as people write it."""
        return f"{self.model}@{self.version}"

    @classmethod
    def of(cls, name: str, digest: str) -> Self:
        """Build from ``model@version`` and a digest."""
        model, _, version = name.partition("@")
        return cls(model=model, version=version, digest=digest)
