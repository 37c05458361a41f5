"""``serinus-server run``: wiring, ports, signals; no logic."""

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from edge_core.errors import InvalidConfiguration, SerinusError
from fleet_server import authority_command, transport
from fleet_server import config as configuration
from fleet_server.app import create_app, create_watched
from fleet_server.broker import Broker
from fleet_server.broker_guard import BrokerGuard
from fleet_server.config import ServerConfig
from fleet_server.device_ca import DeviceCa
from fleet_server.domain.permissions import ROLES
from fleet_server.http_head import LimitedHead
from fleet_server.leader import Leader
from fleet_server.mqtt_gateway import MqttGateway
from fleet_server.services import backups
from fleet_server.services.authority_files import Secrecy
from fleet_server.services.clock import wall_clock
from fleet_server.services.suite import DATABASE, Services
from fleet_server.storage import schema
from fleet_server.storage.database import Database
from fleet_server.transport import ServerFiles

USAGE_EXIT = 1
UNUSABLE_EXIT = 2


def main() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an ordinary end, with clean-up
    arguments = _parser().parse_args()
    try:
        config = configuration.load(arguments.config)
        if arguments.command == "run":
            run(config)
        elif arguments.command == "migrate":
            print(migrate(config, check=arguments.check))
        elif arguments.command == "backup":
            secrecy = _secrecy(arguments.passphrase_file, plain=arguments.plain_keys)
            print(back_up(config, arguments.file, secrecy))
        elif arguments.command == "restore":
            passphrase = _secrecy(arguments.passphrase_file).passphrase
            print(restore(config, arguments.file, passphrase, force=arguments.force))
        elif arguments.command == "certificate":
            print(make_certificate(config, arguments.names))
        elif arguments.command == "authority":
            print(follow(config, arguments.step, force=getattr(arguments, "force", False)))
        elif arguments.command == "token":
            print(
                make_token(config, arguments.name, arguments.role, arguments.model, arguments.days)
            )
        else:
            print(f"settings are valid; data in {config.data}, page at {config.url}")
    except SerinusError as error:
        print(f"serinus-server: {error}", file=sys.stderr)
        sys.exit(UNUSABLE_EXIT)
    except KeyboardInterrupt:
        pass


DAY_MS = 86_400_000
SWITCH_SECONDS = 0.0005
"""How long one thread computes while others wait. A list call reads a hundred rows, and after each
of them it may have to wait so long for the thread that stores windows; Python's own 5 ms add up."""


CERTIFICATE_SECONDS = 2
"""How often HTTPS looks whether its certificate was replaced."""


def run(config: ServerConfig) -> None:
    """Run the server until a signal ends it.

    Raises:
        InvalidConfiguration: a port or the data folder is taken.
        Unavailable: the broker or the database cannot be used.
    """
    roles = config.process.roles
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_only_server(config.data))
        listener = stack.enter_context(_listen(config))
        services = Services.open(config)
        stack.callback(services.database.close)
        if migrated := _migrated(services):
            print(migrated, flush=True)
        services.tokens.ensure_operator(config.token_file)
        broker = Broker(config.mqtt, config.data, transport.broker_tls(config, services))
        if "ingest" in roles:
            _take_in(config, services, broker, stack)
        _greet(config, broker, services)
        app = create_app(config, services) if "api" in roles else create_watched(services)
        behind_proxy = config.tls.mode == "proxy"
        _serve(app, listener, transport.server_files(config, services), behind_proxy)


def _take_in(
    config: ServerConfig, services: Services, broker: Broker, stack: contextlib.ExitStack
) -> None:
    """Start to store what devices send and, where that is a role, to decide."""
    stack.callback(broker.stop)
    tls = _start_broker(config, services, broker, stack)
    gateway = MqttGateway(config.mqtt, services.ingest, services.desired, services.listening, tls)
    stack.callback(gateway.stop)
    if "decide" in config.process.roles:
        leader = Leader(config, services, gateway)
        stack.callback(leader.stop)
        leader.start()  # first, for windows of a release that is not known yet are refused
        services.health.watch("decisions", lambda: leader.ended, alive=True)
        services.gauges.add("leading", lambda: services.leading.leads)
    gateway.start()
    _watch(services, gateway)


def _start_broker(
    config: ServerConfig, services: Services, broker: Broker, stack: contextlib.ExitStack
) -> ssl.SSLContext | None:
    """Start it, and what keeps revoked devices off it; returns how the server connects."""
    tls = broker.tls
    if tls is None:
        broker.start()
        return transport.to_external(config.mqtt)
    guard = BrokerGuard(config.mqtt, services.certificates, broker, tls, wall_clock)
    guard.prepare()
    broker.start()
    stack.callback(guard.stop)
    guard.start()
    ended = "the thread that keeps revoked devices off has ended"
    services.health.watch("revocation", lambda: guard.problem, alive=False)
    services.health.watch("broker guard", lambda: "" if guard.alive else ended, alive=True)
    return guard.context


def back_up(config: ServerConfig, file: Path, secrecy: Secrecy) -> str:
    """Write the server's state to a file; says what was written."""
    made = backups.back_up(config, file, _tell, secrecy=secrecy)
    rows = sum(part.rows for part in made.parts)
    return f"{file}: {rows:,} rows of {len(made.parts)} tables, schema revision {made.revision}"


def restore(config: ServerConfig, file: Path, passphrase: bytes | None, *, force: bool) -> str:
    """Make the database what a backup says; says what was restored."""
    with _only_server(config.data):
        made = backups.restore(config, file, _tell, force=force, passphrase=passphrase)
    rows = sum(part.rows for part in made.parts)
    return f"restored {rows:,} rows of {len(made.parts)} tables from {file}"


def _secrecy(passphrase_file: Path | None, *, plain: bool = False) -> Secrecy:
    if passphrase_file is None:
        return Secrecy(plain=plain)
    try:
        passphrase = passphrase_file.read_bytes().strip()
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read --passphrase-file {passphrase_file}: {error.strerror}"
        ) from error
    if not passphrase:
        raise InvalidConfiguration(f"--passphrase-file {passphrase_file} is empty")
    return Secrecy(passphrase=passphrase)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def migrate(config: ServerConfig, *, check: bool = False) -> str:
    """Bring the database up to date, or only look; says what was done.

    Raises:
        InvalidConfiguration: it is not up to date, and was only looked at.
    """
    _require_data(config)
    if check:
        return _checked(config)
    services = Services.open(config)
    try:
        return _migrated(services) or f"the schema of {services.database.name} is up to date"
    finally:
        services.database.close()


def _checked(config: ServerConfig) -> str:
    database = Database.at(config.database.url, config.data / DATABASE, migrate=False)
    try:
        with database.read() as connection:
            found = schema.present(connection)
    finally:
        database.close()
    if found != schema.newest():
        raise InvalidConfiguration(
            f"the schema of {database.name} is at revision {found or 'none'}, this server's at "
            f"{schema.newest()}: run 'serinus-server migrate'"
        )
    return f"the schema of {database.name} is up to date"


def _migrated(services: Services) -> str:
    """What opening the database changed; empty where nothing."""
    before = services.database.migrated_from
    if before is None:
        return ""
    return f"the schema of {services.database.name} was brought up from revision {before}"


def _watch(services: Services, gateway: MqttGateway) -> None:
    """Let health and metrics ask the gateway, which runs beside the services."""
    health, gauges = services.health, services.gauges
    health.watch("ingest", lambda: "" if gateway.alive else "its thread has ended", alive=True)
    connected = "the broker cannot be reached"
    health.watch("broker", lambda: "" if gateway.connected else connected, alive=False)
    gauges.add("broker_connected", lambda: gateway.connected)
    gauges.add("ingest_waiting_messages", lambda: gateway.waiting)


def make_token(
    config: ServerConfig, name: str, role: str, models: list[str], days: float | None
) -> str:
    """Make an API token and return its secret; the server may be running.

    Args:
        config: the server's settings.
        name: whom it is for.
        role: what it may do.
        models: what it may change something of; empty: of all.
        days: how long it lasts; none: until it is revoked.
    """
    _require_data(config)
    services = Services.open(config)
    try:
        ends = None if days is None else wall_clock() + round(days * DAY_MS)
        return services.tokens.create(name, role, models=models, expires_ms=ends)
    finally:
        services.database.close()


def make_certificate(config: ServerConfig, names: list[str]) -> str:
    """Make the server's certificate for HTTPS and the broker; says where it is."""
    authority = DeviceCa(config.ca_dir)
    file = authority.certify_server(names, now_ms=wall_clock())
    return (
        f"{file}: for {', '.join(names)}; set tls.mode = 'fleet' and start the server again\n"
        f"{authority.certificate_file}: give it to devices and operators as ca_file"
    )


def follow(config: ServerConfig, step: str, *, force: bool) -> str:
    """Take a step from one certificate authority to the next; the server may be running."""
    _require_data(config)
    services = Services.open(config)
    try:
        return authority_command.carry_out(services.succession, step, force=force)
    finally:
        services.database.close()


def _require_data(config: ServerConfig) -> None:
    if not config.data.is_dir():
        raise InvalidConfiguration(
            f"no data folder {config.data}: start the server once, or name its settings"
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="serinus-server", description="The fleet server of Serinus.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "run the server; without settings it starts on SQLite and loopback"),
        ("migrate", "bring the database's schema up to date; 'run' does so by itself"),
        ("backup", "write database and certifying key to a file; the server may be running"),
        ("restore", "make the database what a backup says; no server may be running"),
        ("check-config", "read the settings and say whether they are valid"),
        ("token", "make an API token and print it; only its hash is stored"),
        ("certificate", "make the server's certificate, signed by the fleet's own authority"),
    ):
        command = commands.add_parser(name, help=text)
        _take_config(command)
        if name == "migrate":
            command.add_argument("--check", action="store_true", help="only say whether it is")
        if name in ("backup", "restore"):
            command.add_argument("file", type=Path, help="the backup (tar)")
            command.add_argument(
                "--passphrase-file",
                type=Path,
                metavar="FILE",
                help="encrypts its keys",
            )
        if name == "backup":
            command.add_argument(
                "--plain-keys", action="store_true", help="write the keys in it as they are"
            )
        if name == "restore":
            command.add_argument("--force", action="store_true", help="replace what is there")
        if name == "certificate":
            command.add_argument(
                "names", nargs="+", metavar="NAME", help="names and addresses it is reached by"
            )
        if name == "token":
            command.add_argument("name", help="whom it is for, as the log shows it")
            command.add_argument("--role", choices=ROLES, default="viewer")
            command.add_argument(
                "--model",
                action="append",
                default=[],
                help="it may change something of this model only; may be given often",
            )
            command.add_argument("--days", type=float, help="it ends by itself after so many")
    authority = commands.add_parser("authority", help="let another certificate authority follow")
    steps = authority.add_subparsers(dest="step", required=True)
    for step, text in authority_command.STEPS.items():
        command = steps.add_parser(step, help=text)
        _take_config(command)
        if step in authority_command.FORCED:
            command.add_argument("--force", action="store_true", help="leave devices behind")
    return parser


def _take_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")


class _Parser(argparse.ArgumentParser):
    """Ends with our exit code for wrong use."""

    def error(self, message: str) -> "None":  # type: ignore[override]  # exits, as the parent does
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(USAGE_EXIT)


@contextlib.contextmanager
def _only_server(data: Path) -> Iterator[None]:
    """Hold the data folder, so that no second server decides over the same fleet."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "server.lock").open("a+")
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot use the data folder {data}: {error.strerror}; name another with data_dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidConfiguration(
                f"another server uses the data folder {data}: stop it, or name another data_dir"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named in full, or asyncio does not see that it is TCP and leaves answers to Nagle: 40 ms each.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(
            f"cannot listen on {config.host} port {config.port} ({error.strerror}): stop what "
            "uses it, or set port to a free one"
        ) from error
    return listener


def _greet(config: ServerConfig, broker: Broker, services: Services) -> None:
    listed = sum(services.catalog.known().values())
    approved = f"{listed} approved releases" if listed else "no approved releases yet"
    roles = "" if config.process.alone else f"  roles       {', '.join(config.process.roles)}\n"
    answers = "page        " if "api" in config.process.roles else "metrics     "
    place = "" if "api" in config.process.roles else "metrics"
    print(
        "Serinus fleet server\n"
        f"{roles}"
        f"  {answers}{config.url}/{place}\n"
        f"  token       {config.token_file} (operator)\n"
        f"  broker      {broker.description}\n"
        f"  repository  {config.repository_dir} ({approved}), served at {config.url}/repository",
        flush=True,
    )


def _serve(
    app: FastAPI, listener: socket.socket, tls: ServerFiles | None, behind_proxy: bool
) -> None:
    settings = uvicorn.Config(
        app,
        http=LimitedHead,
        proxy_headers=behind_proxy,  # else anybody here could name himself another address
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        ws="none",
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
        timeout_notify=CERTIFICATE_SECONDS,
    )
    if tls is not None:
        settings.load()
        assert settings.ssl is not None, "it has a certificate"
        settings.callback_notify = transport.following(tls, settings.ssl)
    uvicorn.Server(settings).run(sockets=[listener])


if __name__ == "__main__":
    main()
