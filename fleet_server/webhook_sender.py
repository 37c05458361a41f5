"""Sends webhooks: HTTP without redirects, to addresses that may be called, several at once."""

import ipaddress
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

import urllib3

from fleet_server.domain import webhook as rules
from fleet_server.services.webhooks import Outgoing, Webhooks

TIMEOUT_SECONDS = 10.0
AT_ONCE = 4
MAX_ANSWER_BYTES = 2048


class Attempt(NamedTuple):
    """What came of sending one message."""

    status: int | None
    answer: str


class WebhookSender:
    """One round takes what is due; a receiver that is slow holds up its own messages alone."""

    def __init__(self, webhooks: Webhooks, *, private: bool) -> None:
        self._webhooks = webhooks
        self._private = private
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def send(self, may: Callable[[], bool]) -> None:
        """Begin to send what is due, where ``may`` says that this process does so now."""
        by_receiver: dict[str, list[Outgoing]] = {}
        for message in self._webhooks.to_send():
            by_receiver.setdefault(message.webhook, []).append(message)
        with self._lock:
            free = {name: m for name, m in by_receiver.items() if name not in self._busy}
            if not free or not may():
                return
            self._busy |= free.keys()
        for name, messages in free.items():
            self._pool.submit(self._serve, name, messages)

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _serve(self, name: str, messages: list[Outgoing]) -> None:
        try:
            for message in messages:
                attempt = post(message, private=self._private)
                self._webhooks.note(message.delivery, attempt.status, attempt.answer)
                if attempt.status is None:
                    return  # nobody is there: the others wait as well
        finally:
            with self._lock:
                self._busy.discard(name)


def post(message: Outgoing, *, private: bool) -> Attempt:
    """Send one message to the address that was checked, not to what its name says afterwards."""
    parts = urlsplit(message.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return Attempt(None, f"{host} is not known: {error}")
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    problems = [rules.problem_of_host(address, private=private) for address in addresses]
    if any(problems):
        return Attempt(None, next(filter(None, problems)))
    pool = _pool(parts.scheme, host, addresses[0], port)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = f"[{host}]" if ":" in host else host
    headers = message.headers | {"host": named if parts.port is None else f"{named}:{port}"}
    try:
        answer = pool.urlopen(
            "POST", path, body=message.body, headers=headers, redirect=False, retries=False,
            preload_content=False, assert_same_host=False,
        )  # fmt: skip
        said = answer.read(MAX_ANSWER_BYTES).decode(errors="replace")
        answer.close()
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        return Attempt(None, str(error))
    finally:
        pool.close()
    return Attempt(answer.status, f"{answer.status} {said}".strip())


def _pool(scheme: str, host: str, address: str, port: int) -> urllib3.HTTPConnectionPool:
    timeout = urllib3.Timeout(total=TIMEOUT_SECONDS)
    if scheme == "http":
        return urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    return urllib3.HTTPSConnectionPool(
        address, port, timeout=timeout, assert_hostname=host, server_hostname=_sni(host)
    )


def _sni(host: str) -> str | None:
    """Names are told to the receiver, addresses are not (RFC 6066)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None
