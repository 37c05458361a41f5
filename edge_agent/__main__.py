"""``serinus-agent``: wiring and signals."""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from edge_agent.allocator import keep_freed_memory
from edge_core.errors import SerinusError

EXAMPLES = """examples:
  serinus-agent run --config /etc/serinus/agent.toml
  serinus-agent status --config /etc/serinus/agent.toml
  serinus-agent install bundle.tar --config /etc/serinus/agent.toml
  serinus-agent serve build/bundle --socket /tmp/agent.sock

exit codes: 0 done, 1 wrong use, 2 bad input or settings"""


class _Parser(argparse.ArgumentParser):
    """Wrong use ends with 1; 2 stays for bad input."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = _Parser(
        prog="serinus-agent",
        description="Serves approved models on this device and keeps them up to date.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("serinus"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "run in a fleet until SIGTERM"),
        ("check-config", "check the settings file and say what it means"),
        ("status", "show what the running agent is doing"),
        ("install", "side-load a signed bundle while the agent is stopped"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, help="settings file (TOML)")
        if name == "install":
            command.add_argument("bundle", type=Path, help="bundle folder or archive")
    serve = commands.add_parser("serve", help="serve bundles without a fleet")
    serve.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="bundle folder")
    serve.add_argument("--socket", type=Path, required=True, help="Unix socket to serve on")
    serve.add_argument("--target", default="cpu-x86_64-ort", help="variant (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = build_parser().parse_args(arguments)
    if options.command in ("run", "serve"):
        keep_freed_memory()
    try:
        match options.command:
            case "run":
                _run(options.config)
            case "check-config":
                _check_config(options.config)
            case "status":
                _status(options.config)
            case "install":
                _install(options.bundle, options.config)
            case _:
                _serve(options.bundles, options.target, options.socket)
    except SerinusError as error:
        print(f"serinus-agent: {error}", file=sys.stderr)
        return 2
    return 0


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _run(path: Path) -> None:
    from edge_agent import config as configs
    from edge_agent.agent import Agent, only_one
    from edge_core.errors import InvalidConfiguration

    config = configs.load(path)
    if config.repository is None:
        raise InvalidConfiguration(f"{path}: 'run' needs [repository] and [mqtt]")

    async def serve() -> None:
        await Agent(config, configs.supervision()).run(_stop_on_signals())

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    with only_one(config.state_dir):
        asyncio.run(serve())


def _check_config(path: Path) -> None:
    from edge_agent import config as configs

    config = configs.load(path)
    for name in config.__struct_fields__:
        print(f"{name} = {getattr(config, name)}")


def _status(path: Path) -> None:
    from edge_agent import config as configs
    from edge_agent.client import AgentClient

    with AgentClient(configs.load(path).serving.socket) as client:
        for name, value in client.status().items():
            print(f"{name:<16} {'-' if value in (None, '') else value}")


def _install(bundle: Path, path: Path) -> None:
    from edge_agent import config as configs
    from edge_agent import sideload
    from edge_agent.agent import only_one

    config = configs.load(path)
    with only_one(config.state_dir):
        ref = sideload.install(bundle, config)
    print(f"installed {ref.name} ({ref.digest[:12]}); start the agent to serve it")


def _serve(bundles: list[Path], target: str, socket: Path) -> None:
    from edge_agent.serving import standalone

    async def serve() -> None:
        now_ms = time.time_ns() // 1_000_000
        await standalone.serve(bundles, target, socket, now_ms, _stop_on_signals())

    asyncio.run(serve())


if __name__ == "__main__":
    sys.exit(main())
