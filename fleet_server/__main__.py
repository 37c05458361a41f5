"""``serinus-server``: arguments only."""

import argparse
import signal
import sys
from pathlib import Path

from edge_core.errors import SerinusError
from fleet_server import config as configuration
from fleet_server.authority import command as authority_command
from fleet_server.domain.permissions import ROLES
from fleet_server.maintenance import (
    back_up,
    follow,
    make_certificate,
    make_token,
    migrate,
    restore,
    secrecy,
)
from fleet_server.running import run

MOST_DAYS = 36_500
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
            kept = secrecy(arguments.passphrase_file, plain=arguments.plain_keys)
            print(back_up(config, arguments.file, kept))
        elif arguments.command == "restore":
            passphrase = secrecy(arguments.passphrase_file).passphrase
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
            command.add_argument("--days", type=_days, help="it ends by itself after so many")
    authority = commands.add_parser("authority", help="let another certificate authority follow")
    steps = authority.add_subparsers(dest="step", required=True)
    for step, text in authority_command.STEPS.items():
        command = steps.add_parser(step, help=text)
        _take_config(command)
        if step in authority_command.FORCED:
            command.add_argument("--force", action="store_true", help="leave devices behind")
    return parser


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= MOST_DAYS:
        raise ValueError
    return days


def _take_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")


class _Parser(argparse.ArgumentParser):
    """Ends with our exit code for wrong use."""

    def error(self, message: str) -> "None":  # type: ignore[override]  # exits, as the parent does
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(USAGE_EXIT)


if __name__ == "__main__":
    main()
