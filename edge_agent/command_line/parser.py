"""The command line of ``serinus-agent``: names, options and what they mean. Nothing is done here.

Shells complete it by :mod:`edge_agent.command_line.completion`, which reads the same parser.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

EXAMPLES = """examples:
  serinus-agent run --config /etc/serinus/agent.toml
  serinus-agent enrol --config /etc/serinus/agent.toml --token-file token
  serinus-agent status --config /etc/serinus/agent.toml
  serinus-agent install bundle.tar --config /etc/serinus/agent.toml
  serinus-agent serve build/bundle --socket /tmp/agent.sock
  serinus-agent predict build/bundle --input windows.npy
  serinus-agent prediction 5f3a9c01-2b --config /etc/serinus/agent.toml
  serinus-agent check-config --print-defaults > agent.toml

exit codes: 0 done, 1 wrong use, 2 bad input or settings, 3 nothing serves (status)"""

SHELLS = ("bash", "zsh", "fish")
LARGEST_PORT = 65535


class _Parser(argparse.ArgumentParser):
    """Wrong use ends with 1; 2 stays for bad input."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


class _Version(argparse.Action):
    """Reads the version only where it is asked for, since that costs start-up time."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("serinus"))
        parser.exit()


def build() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = _Parser(
        prog="serinus-agent",
        description="Serves approved models on this device and keeps them up to date.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _command(commands, "run", "run in a fleet until SIGTERM")
    _config(run, required=True)
    _enrol(commands)
    _check_config(commands)
    _status(commands)
    install = _command(commands, "install", "side-load a signed bundle while the agent is stopped")
    install.add_argument("bundle", type=Path, help="bundle folder or archive")
    _config(install, required=True)
    _serve(commands)
    _predict(commands)
    _prediction(commands)
    completion = _command(commands, "completion", "print a script that lets a shell complete this")
    completion.add_argument("shell", choices=SHELLS, help="which shell")
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    return command


def _config(command: Any, *, required: bool = False) -> None:
    command.add_argument("--config", type=Path, required=required, help="settings file (TOML)")


def _check_config(commands: Any) -> None:
    command = _command(commands, "check-config", "check the settings file and say what it means")
    which = command.add_mutually_exclusive_group(required=True)
    _config(which)
    which.add_argument(
        "--print-defaults",
        action="store_true",
        help="print a settings file with every setting, its default and its meaning",
    )


def _enrol(commands: Any) -> None:
    command = _command(commands, "enrol", "get this device's certificate for an enrolment token")
    _config(command, required=True)
    command.add_argument(
        "--token-file", type=Path, required=True, help="file that holds the enrolment token"
    )


def _status(commands: Any) -> None:
    command = _command(commands, "status", "show what the running agent is doing")
    which = command.add_mutually_exclusive_group(required=True)
    _config(which)
    which.add_argument("--socket", type=Path, help="socket of an agent without settings file")
    command.add_argument("--json", action="store_true", help="for machines: one JSON object")


def _serve(commands: Any) -> None:
    command = _command(commands, "serve", "serve bundles without a fleet")
    command.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="bundle folder")
    command.add_argument("--socket", type=Path, required=True, help="Unix socket to serve on")
    command.add_argument(
        "--rest-port",
        type=_port,
        default=0,
        help="port of the Open Inference Protocol on 127.0.0.1 (default: off)",
    )
    command.add_argument(
        "--grpc-port", type=_port, default=0, help="the same over gRPC (default: off)"
    )
    command.add_argument(
        "--log-folder",
        type=Path,
        help="where to note which release gave which answer (default: nowhere)",
    )
    _target(command)


def _predict(commands: Any) -> None:
    command = _command(commands, "predict", "answer the rows of a file without a fleet")
    command.add_argument("bundle", type=Path, help="bundle folder")
    command.add_argument(
        "--input",
        type=Path,
        required=True,
        help="windows or requests: .npy, .npz, .csv or .jsonl",
    )
    command.add_argument(
        "--events",
        action="append",
        default=[],
        metavar="STREAM=FILE",
        help="events of one stream of requests: .csv or .jsonl (may be repeated)",
    )
    command.add_argument(
        "--output", type=Path, default=Path("-"), help="file to write, - for the screen (default)"
    )
    command.add_argument(
        "--format",
        choices=("json", "csv"),
        default="json",
        help="an object a line, or a table (default: json)",
    )
    _target(command)


def _prediction(commands: Any) -> None:
    command = _command(commands, "prediction", "say which release gave an answer, and how")
    command.add_argument("id", help="the prediction's id, which came with the answer")
    which = command.add_mutually_exclusive_group(required=True)
    _config(which)
    which.add_argument("--log-folder", type=Path, help="that of 'serve'")
    command.add_argument("--json", action="store_true", help="for machines: one JSON object")


def _target(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--target", help="which variant to run (default: the one for this machine)"
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give 0 to {LARGEST_PORT}")
    return int(text)
