"""``serinus-agent check-config``: what a settings file means, and what of it cannot work here."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent import tls
from edge_agent.command_line import settings
from edge_agent.command_line.settings import Setting
from edge_agent.command_line.status_view import by_name, printable
from edge_agent.config import AgentConfig
from edge_core.bundle import signature
from edge_core.errors import SerinusError

MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""
MAX_KEY_BYTES = 16 * 1024
_USER_INFO = re.compile(r"(?<=://)[^/@]*@")


def page(config: AgentConfig) -> str:
    """What the settings mean."""
    lines = [
        f"device      {config.device}, runs variants for {config.target}",
        f"serves      on {config.serving.socket}; {_rest(config)}",
        f"follows     {_fleet(config)}",
        f"keeps       its state in {config.state_dir}",
        f"side-loads  {_sideloads(config)}",
        f"logs        {config.log.format}, {config.log.level} and more serious",
        "",
        "every setting; * differs from its default",
        *_every(config),
    ]
    return "\n".join(printable(line) for line in lines)


def problems(config: AgentConfig) -> Iterator[str]:
    """What cannot work on this machine: the key, what is wrong, and the fix. Changes nothing."""
    yield from _unwritable("state_dir", config.state_dir)
    yield from _unwritable("[serving] socket", config.serving.socket.parent)
    socket = config.serving.socket
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        yield (
            f"[serving] socket: {socket} has {len(os.fsencode(socket))} bytes; a Unix socket's "
            f"path has at most {MAX_SOCKET_PATH}: choose a shorter one"
        )
    if config.repository is not None:
        yield from _unreadable("[repository] trusted_root", config.repository.trusted_root)
        if not config.repository.url.startswith(("http://", "https://")):
            yield "[repository] url: it is no http:// or https:// address; write it whole"
        yield from _unusable("[repository] ca_file", config.repository.ca_file)
    if config.mqtt is not None:
        yield from _unusable("[mqtt] ca_file", config.mqtt.ca_file)
    if config.identity is not None:
        yield from _unusable("[identity] ca_file", config.identity.ca_file)
        if config.identity.pkcs11_pin_file is not None:
            yield from _unreadable("[identity] pkcs11_pin_file", config.identity.pkcs11_pin_file)
    for key in config.sideload.keys:
        yield from _no_key(key)


def _rest(config: AgentConfig) -> str:
    rest, grpc = config.serving.rest_port, config.serving.grpc_port
    found = [f"REST on 127.0.0.1:{rest}" if rest else "no REST (rest_port = 0)"]
    if grpc:
        found.append(f"gRPC on 127.0.0.1:{grpc}")
    return ", ".join(found)


def _fleet(config: AgentConfig) -> str:
    if config.repository is None or config.mqtt is None:
        return "no fleet: 'run' needs [repository] and [mqtt]; 'install' brings releases"
    user = f" as {config.mqtt.username}" if config.mqtt.username else ""
    if config.identity is not None:
        user = " by its certificate"
    url = hidden(config.repository.url)
    return f"{url} for releases, {config.mqtt.host}:{config.mqtt.port}{user} for orders"


def _sideloads(config: AgentConfig) -> str:
    keys = config.sideload.keys
    return f"bundles signed by {', '.join(map(str, keys))}" if keys else "nothing: no key is pinned"


def _every(config: AgentConfig) -> Iterator[str]:
    section = ""
    for setting in settings.all_settings():
        table = getattr(config, setting.section) if setting.section else config
        if table is None:
            continue
        if setting.section != section:
            section = setting.section
            yield f"[{section}]"
        value = getattr(table, setting.key)
        mark = " " if setting.required or value == setting.default else "*"
        yield f" {mark}{setting.key:<18} {shown(setting, value)}"


def shown(setting: Setting, value: Any) -> str:
    """A value with its unit; a secret is never shown."""
    if value is None:
        return "not set"
    if setting.secret:
        return "set, hidden"
    if isinstance(value, dict):
        return ", ".join(f"{name}={entry}" for name, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, str | Path):
        return hidden(str(value))
    return by_name(setting.key, value, 0)


def hidden(url: str) -> str:
    """An address without the user and password that it may hold."""
    return _USER_INFO.sub("…@", url)


def _unwritable(key: str, folder: Path) -> Iterator[str]:
    """Whether a folder can be written, or made below one that can."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield f"{key}: {there} is no folder; move it away or name another one"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"{key}: {there} cannot be written by this user; change its owner or name another one"


def _no_key(path: Path) -> Iterator[str]:
    unreadable = list(_unreadable("[sideload] keys", path))
    yield from unreadable
    if unreadable:
        return
    try:
        signature.load_public_key(path.read_bytes()[:MAX_KEY_BYTES], str(path))
    except (SerinusError, OSError) as error:
        yield f"[sideload] keys: {error}"


def _unusable(key: str, ca_file: Path | None) -> Iterator[str]:
    if ca_file is None:
        return
    try:
        tls.trusting(ca_file)
    except SerinusError as error:
        yield f"{key}: {error}"


def _unreadable(key: str, path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        yield f"{key}: cannot read {path} ({error.strerror}); put it there or name another one"
