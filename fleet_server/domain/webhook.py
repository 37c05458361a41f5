"""Webhooks as Standard Webhooks has them (standardwebhooks.com): names, signatures, pauses.

Pure but for the random numbers that are passed in.
"""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

PAGE: Final = "page"
KINDS: Final = (
    PAGE,
    "command",
    "device",
    "drift",
    "expiry",
    "fairness",
    "incident",
    "lapsing",
    "parity",
    "refusal",
    "release",
    "repository",
    "retraining",
    "rollout",
)
SECRET_BYTES: Final = 32
PREFIX: Final = "whsec_"
FIRST_MS: Final = 5_000
LONGEST_MS: Final = 3_600_000
GIVEN_UP_MS: Final = 24 * 3_600_000
"""After so long nothing is sent any more: the receiver is gone, and somebody is told."""


def secret_text(secret: bytes) -> str:
    """A secret as people copy it."""
    return PREFIX + base64.b64encode(secret).decode()


def signature(secret: str, message: str, at_s: int, body: bytes) -> str:
    """``v1,`` and the HMAC-SHA256 of ``id.timestamp.body`` in base64."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b".".join((message.encode(), str(at_s).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def pages(kind: str, detail: Mapping[str, Any]) -> bool:
    """Whether a person has to look at an event now: it says so, or an incident opened."""
    return detail.get("severity") == PAGE or (kind == "incident" and bool(detail.get("opened")))


def wants(kinds: Sequence[str], kind: str, detail: Mapping[str, Any]) -> bool:
    """Whether a webhook for these kinds is told of an event."""
    return kind in kinds or (PAGE in kinds and pages(kind, detail))


def next_ms(attempts: int, jitter: float) -> int:
    """How long to wait after so many failed attempts.

    Args:
        attempts: at least 1.
        jitter: 0 to 1, drawn: receivers that come back are not met by everybody at once.
    """
    pause = min(LONGEST_MS, FIRST_MS << min(attempts - 1, 20))
    return round(pause * (0.75 + 0.5 * jitter))


def problem_of_url(url: str) -> str:
    """What is wrong with an address; empty where nothing is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "it is no address"
    if parts.scheme not in ("http", "https"):
        return "it does not begin with https:// or http://"
    if not parts.hostname or port == 0:
        return "it names no host"
    if parts.username or parts.password:
        return "it holds a password, which would be shown: verify the signature instead"
    return ""


def problem_of_host(address: str, *, private: bool) -> str:
    """Why nothing is sent to an IP address: inner ones are for the server's own network."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return "it has no IP address"
    if found.is_multicast or found.is_unspecified or found.is_link_local:
        return f"{address} is no receiver's address"
    if not found.is_global and not private:
        return (
            f"{address} is in a private network: set [webhooks] private = true where receivers "
            "are there"
        )
    return ""
