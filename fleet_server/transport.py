"""Which certificates the server speaks TLS with, to whom."""

import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

from edge_core.errors import InvalidConfiguration
from fleet_server.authority.device_ca import server_end_ms
from fleet_server.broker import handshake
from fleet_server.broker.files import BrokerTls
from fleet_server.config import MqttConfig, ServerConfig
from fleet_server.services.clock import wall_clock
from fleet_server.services.suite import Services

Follow = Callable[[], Coroutine[None, None, None]]


class ServerFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The server's own certificate with its chain, and its key; PEM."""

    certificate: Path
    key: Path

    def written(self) -> list[tuple[int, int]]:
        """What is another once one of them was replaced; raises ``OSError``."""
        found = [file.stat() for file in (self.certificate, self.key)]
        return [(one.st_mtime_ns, one.st_ino) for one in found]


def server_files(config: ServerConfig, services: Services) -> ServerFiles | None:
    """What HTTPS is spoken with; none where it is not. A gauge tells how long it lasts.

    Raises:
        InvalidConfiguration: there is no such file, it is none, or it has expired.
    """
    if not config.tls.on:
        return None
    found = _files(config)
    end_ms = server_end_ms(found.certificate)
    if end_ms <= wall_clock():
        raise InvalidConfiguration(f"the server's certificate {found.certificate} has expired")
    handshake.check_pair(found.certificate, found.key)
    services.gauges.add("certificate_seconds_left", lambda: _seconds_left(found.certificate))
    return found


def _seconds_left(file: Path) -> float:
    """How long the certificate of a file that may be replaced lasts; 0 where it is none."""
    try:
        return (server_end_ms(file) - wall_clock()) / 1000
    except InvalidConfiguration:
        return 0.0


def following(files: ServerFiles, context: ssl.SSLContext) -> Follow:
    """Shows new connections the certificate as its file is now, whenever it is called."""
    seen, said = files.written(), ""

    async def follow() -> None:
        nonlocal seen, said
        try:  # nothing may leave here: it would end the server
            now = files.written()
            if now != seen:
                # In a context of its own: one with half of both would serve nobody.
                handshake.check_pair(files.certificate, files.key)
                context.load_cert_chain(files.certificate, files.key)
                seen, said = now, ""
        except (InvalidConfiguration, OSError) as error:
            if str(error) != said:
                said = str(error)
                print(f"https: goes on with the certificate before: {said}", file=sys.stderr)

    return follow


def broker_tls(config: ServerConfig, services: Services) -> BrokerTls | None:
    """What the server's own broker knows its clients by; none where it does not.

    Raises:
        InvalidConfiguration: there is no such file, or it is none.
    """
    if not config.mqtt.tls or config.mqtt.broker == "external":
        return None
    own = _files(config)
    handshake.check_pair(own.certificate, own.key)
    services.certificates.trusted()  # made where there is none yet
    authority = services.certificates.authority.certificate_file
    return BrokerTls(ca_file=authority, certificate=own.certificate, key=own.key)


def to_external(config: MqttConfig) -> ssl.SSLContext | None:
    """How the server connects to a broker that others run; none: without TLS."""
    if not config.tls or config.ca_file is None:
        return None
    own = Path(config.certificate) if config.certificate else None
    return handshake.trusting(Path(config.ca_file), own)


def _files(config: ServerConfig) -> ServerFiles:
    if config.tls.certificate is not None and config.tls.key is not None:
        return ServerFiles(certificate=Path(config.tls.certificate), key=Path(config.tls.key))
    file = config.ca_dir / "server.pem"
    if not file.exists():
        raise InvalidConfiguration(
            f"tls.mode = 'fleet', but there is no {file}: run 'serinus-server certificate NAME' "
            "with the names that the server is reached by"
        )
    return ServerFiles(certificate=file, key=file)
