"""The parts of a device's identity, as its settings ask for them."""

import ssl
from collections.abc import Callable
from pathlib import Path

from edge_agent import tls
from edge_agent.config import AgentConfig, Identity
from edge_agent.identity.authority import Authority, HolderKey
from edge_agent.identity.files import Certificate, IdentityFiles
from edge_agent.identity.hardware import HardwareKey
from edge_agent.identity.renewal import Renewal
from edge_agent.identity.trust import Trust
from edge_agent.ports import Clock
from edge_agent.timed_http import TimedHttp
from edge_core.errors import InvalidConfiguration
from edge_core.messages.enrolment import MAX_TOKEN


def trust(config: AgentConfig) -> Trust | None:
    """Whom the device trusts as its fleet, one for all its connections; none without [identity].

    Raises:
        InvalidConfiguration: a file cannot be read.
    """
    if config.identity is None:
        return None
    return Trust(IdentityFiles(config.state_dir), config.identity.ca_file)


def broker_context(config: AgentConfig, trust: Trust | None) -> ssl.SSLContext | None:
    """TLS towards the broker; none where it is spoken to in clear.

    Raises:
        InvalidConfiguration: a file cannot be used, or the device is not enrolled.
    """
    if config.broker_ca is None:
        return None
    if trust is None:
        return tls.trusting(config.broker_ca)
    return trust.context(config.broker_ca, _enrolled(config))


def repository_context(config: AgentConfig, trust: Trust | None) -> ssl.SSLContext | None:
    """TLS towards the release repository; none: whom this machine trusts."""
    if config.repository is None or config.repository.ca_file is None:
        return None
    ca_file = config.repository.ca_file
    return tls.trusting(ca_file) if trust is None else trust.context(ca_file)


def renewal(
    config: AgentConfig, trust: Trust | None, clock: Clock, renewed: Callable[[Path], None]
) -> Renewal | None:
    """What keeps the certificate valid; none where the device has none."""
    if config.identity is None or trust is None:
        return None
    files = IdentityFiles(config.state_dir)
    return Renewal(
        files=files,
        authority=authority(config.identity, trust),
        hardware=hardware(config.identity),
        clock=clock,
        renewed=lambda: renewed(files.own),
    )


def authority(identity: Identity, trust: Trust) -> Authority:
    """The server that certifies this device."""
    http = TimedHttp(stall_seconds=20.0, tls=trust.context(identity.ca_file))
    return Authority(identity.server, http, trust)


def hardware(identity: Identity) -> Callable[[], HolderKey] | None:
    """Opens the key in hardware; none where there is none."""
    module, token, pin_file = (
        identity.pkcs11_module,
        identity.pkcs11_token,
        identity.pkcs11_pin_file,
    )
    if module is None or token is None or pin_file is None:
        return None
    return lambda: HardwareKey(module, token, pin_file, identity.pkcs11_label)


def enrol(config: AgentConfig, token_file: Path) -> Certificate:
    """Have the device certified for an enrolment token.

    Raises:
        SerinusError: why it cannot be.
    """
    if config.identity is None:
        raise InvalidConfiguration("'enrol' needs [identity] in the settings: server and ca_file")
    token = _token(token_file)
    open_key = hardware(config.identity)
    key = None if open_key is None else open_key()
    files = IdentityFiles(config.state_dir)
    known = Trust(files, config.identity.ca_file)
    return authority(config.identity, known).enrol(files, config.device, token, key)


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"cannot read the token file {file}: {error}") from error
    if not token or len(token) > MAX_TOKEN:
        raise InvalidConfiguration(
            f"{file} holds no enrolment token: make one with 'serinus enrol token create'"
        )
    return token


def _enrolled(config: AgentConfig) -> Path:
    files = IdentityFiles(config.state_dir)
    found = files.present()
    if found is None:
        raise InvalidConfiguration(
            f"{config.device} has no certificate yet: run 'serinus-agent enrol' with a token"
        )
    if found[1].device != config.device:
        raise InvalidConfiguration(
            f"{files.own} is of {found[1].device!r}, the settings say {config.device!r}: correct "
            "device, or enrol again"
        )
    return files.own
