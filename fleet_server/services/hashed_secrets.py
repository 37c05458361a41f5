"""Secrets that are known by their hashes only. They are random, 32 bytes, so sha256 is enough."""

import hashlib
import secrets

SHOWN = 12
"""Digits of a hash that name a secret: they let nobody in."""


def make(kind: str) -> str:
    """A new secret; ``kind`` says to a person what it is for."""
    return f"{kind}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """What a secret is stored and found by."""
    return hashlib.sha256(secret.encode()).hexdigest()
