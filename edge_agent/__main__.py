"""``serinus-agent``: wiring and signals."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from edge_agent.allocator import keep_freed_memory
from edge_agent.command_line import parser
from edge_core.errors import InvalidConfiguration, InvalidInput, SerinusError

if TYPE_CHECKING:  # none of them is loaded by commands that need it not: that costs start-up time
    import argparse
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

WRONG_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = parser.build().parse_args(arguments)
    if options.command in ("run", "serve"):
        keep_freed_memory()
    try:
        return _dispatch(options)
    except SerinusError as error:
        print(f"serinus-agent: {error}", file=sys.stderr)
        return WRONG_INPUT
    except BrokenPipeError:  # who read the output has seen enough
        sys.stderr.close()
        return 0


def _dispatch(options: argparse.Namespace) -> int:
    match options.command:
        case "run":
            return _run(options.config)
        case "check-config":
            return _print_defaults() if options.print_defaults else _check_config(options.config)
        case "status":
            return _status(options.config, options.socket, as_json=options.json)
        case "enrol":
            return _enrol(options.config, options.token_file)
        case "install":
            return _install(options.bundle, options.config)
        case "predict":
            return _predict(options)
        case "prediction":
            return _prediction(options.id, options.config, options.log_folder, as_json=options.json)
        case "completion":
            return _complete(options.shell)
        case _:
            return _serve(options)


def _stop_on_signals() -> asyncio.Event:
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _run(path: Path) -> int:
    import asyncio

    from edge_agent import config as configs
    from edge_agent import log_lines
    from edge_agent.agent import Agent
    from edge_agent.state_folder import only_one

    config = configs.load(path)
    if config.repository is None:
        raise InvalidConfiguration(f"{path}: 'run' needs [repository] and [mqtt]")
    writer = log_lines.install(config.log, configs.environment().journal_stream)

    async def serve() -> None:
        agent = Agent(config, configs.supervision())
        writer.fields = agent.log_fields
        await agent.run(_stop_on_signals())

    with only_one(config.state_dir):
        asyncio.run(serve())
    return 0


def _check_config(path: Path) -> int:
    from edge_agent import config as configs
    from edge_agent.command_line import config_view

    config = configs.load(path)
    problems = list(config_view.problems(config))
    for problem in problems:
        print(f"serinus-agent: {path}: {problem}", file=sys.stderr)
    if problems:
        return WRONG_INPUT
    print(f"{path} is valid\n\n{config_view.page(config)}")
    return 0


def _print_defaults() -> int:
    from edge_agent.command_line import default_settings

    print(default_settings.rendered(), end="")
    return 0


def _status(path: Path | None, socket: Path | None, *, as_json: bool) -> int:
    import msgspec

    from edge_agent import config as configs
    from edge_agent.client import AgentClient
    from edge_agent.command_line import status_view

    if path is not None:
        socket = configs.load(path).serving.socket
    assert socket is not None, "the parser asks for one of them"
    with AgentClient(socket) as client:
        status = client.status()
    if as_json:
        print(msgspec.json.encode(status).decode())
    else:
        colours = sys.stdout.isatty() and not configs.environment().no_colour
        print(status_view.page(status, time.time_ns() // 1_000_000, colours=colours))
    return 0 if status_view.serves(status) else status_view.NOTHING_SERVES


def _install(bundle: Path, path: Path) -> int:
    from edge_agent import config as configs
    from edge_agent import sideload
    from edge_agent.state_folder import only_one

    config = configs.load(path)
    with only_one(config.state_dir):
        ref = sideload.install(bundle, config)
    print(f"installed {ref.name} ({ref.digest[:12]}); start the agent to serve it")
    return 0


def _enrol(path: Path, token_file: Path) -> int:
    from datetime import UTC, datetime

    from edge_agent import config as configs
    from edge_agent.identity import opening
    from edge_agent.state_folder import only_one

    config = configs.load(path)
    with only_one(config.state_dir):
        made = opening.enrol(config, token_file)
    until = datetime.fromtimestamp(made.not_after_ms / 1000, UTC)
    print(f"enrolled {made.device} until {until:%Y-%m-%d %H:%M}Z; 'run' renews it in time")
    return 0


def _serve(options: argparse.Namespace) -> int:
    import asyncio

    from edge_agent.serving import standalone

    async def serve() -> None:
        now_ms = time.time_ns() // 1_000_000
        await standalone.serve(
            options.bundles,
            options.target,
            options.socket,
            now_ms,
            _stop_on_signals(),
            rest_port=options.rest_port,
            grpc_port=options.grpc_port,
            log_folder=options.log_folder,
        )

    asyncio.run(serve())
    return 0


def _predict(options: argparse.Namespace) -> int:
    from edge_agent.command_line import predict

    predict.predict(
        options.bundle,
        options.input,
        target=options.target,
        events=options.events,
        output=options.output,
        form=options.format,
        now_us=time.time_ns() // 1_000,
    )
    return 0


def _prediction(
    prediction_id: str, config: Path | None, folder: Path | None, *, as_json: bool
) -> int:
    from edge_agent import config as configs
    from edge_agent.command_line import prediction_view
    from edge_agent.serving import prediction_log

    if config is not None:
        folder = configs.load(config).state_dir
    assert folder is not None, "the parser asks for one of them"
    line = prediction_log.find(folder, prediction_id)
    if line is None:
        raise InvalidInput(
            f"{folder} knows no prediction {prediction_id[:64]}: it is of another device or too "
            "old, or [serving] prediction_log_bytes is 0"
        )
    shown = prediction_view.json if as_json else prediction_view.page
    print(shown(prediction_id, line))
    return 0


def _complete(shell: str) -> int:
    from edge_agent.command_line import completion

    print(completion.script(shell, parser.build()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
