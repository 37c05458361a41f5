"""What an operator does at the server's own machine: backups, schema, tokens, certificates."""

import sys
from pathlib import Path

from edge_core.errors import InvalidConfiguration
from fleet_server.authority import command as authority_command
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.config import ServerConfig
from fleet_server.data_folder import only_server, require_data
from fleet_server.running import migrated
from fleet_server.services import backups
from fleet_server.services.authority_files import Secrecy
from fleet_server.services.clock import wall_clock
from fleet_server.services.suite import DATABASE, Services
from fleet_server.storage import schema
from fleet_server.storage.database import Database

DAY_MS = 86_400_000


def back_up(config: ServerConfig, file: Path, secrecy: Secrecy) -> str:
    """Write the server's state to a file; says what was written."""
    made = backups.back_up(config, file, _tell, secrecy=secrecy)
    rows = sum(part.rows for part in made.parts)
    return f"{file}: {rows:,} rows of {len(made.parts)} tables, schema revision {made.revision}"


def restore(config: ServerConfig, file: Path, passphrase: bytes | None, *, force: bool) -> str:
    """Make the database what a backup says; says what was restored."""
    with only_server(config.data):
        made = backups.restore(config, file, _tell, force=force, passphrase=passphrase)
    rows = sum(part.rows for part in made.parts)
    return f"restored {rows:,} rows of {len(made.parts)} tables from {file}"


def secrecy(passphrase_file: Path | None, *, plain: bool = False) -> Secrecy:
    """What is to be done with keys in a backup.

    Raises:
        InvalidConfiguration: the passphrase cannot be read, or is empty.
    """
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
    require_data(config)
    if check:
        return _checked(config)
    services = Services.open(config)
    try:
        return migrated(services) or f"the schema of {services.database.name} is up to date"
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
    require_data(config)
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
    require_data(config)
    services = Services.open(config)
    try:
        return authority_command.carry_out(services.succession, step, force=force)
    finally:
        services.database.close()
