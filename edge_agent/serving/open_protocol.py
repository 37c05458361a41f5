"""The Open Inference Protocol as the settings ask for it: over HTTP, gRPC, both or neither.

What is not asked for is not imported: it would cost memory and time at the start.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from importlib.metadata import version
from typing import Any, TypeAlias

from edge_agent.serving.engine import Engine
from edge_agent.serving.socket import StatusSource
from edge_core.errors import InvalidConfiguration

Serve: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Serves until it is cancelled."""


def servers(engine: Engine, status: StatusSource, *, rest_port: int, grpc_port: int) -> list[Serve]:
    """Take the ports, so that trouble with them shows before anything else begins; 0 for none.

    Raises:
        InvalidConfiguration: a port is taken, or gRPC is not installed.
    """
    found: list[Serve] = []
    ours = version("serinus")
    if rest_port:
        from edge_agent.serving import rest

        listener = rest.listen(rest_port)
        found.append(partial(rest.serve, rest.create_app(engine, ours, status), listener))
    if grpc_port:
        try:
            from edge_agent.serving import grpc_server
        except ImportError as error:
            raise InvalidConfiguration(
                f"[serving] grpc_port needs gRPC ({error.name} is missing); install "
                "'serinus[grpc]', or set it to 0"
            ) from error
        server = grpc_server.listen(grpc_port, engine, ours)
        found.append(partial(grpc_server.serve, server))
    return found
