"""Runs the server: wiring, ports, threads; no logic."""

import contextlib
import socket
import ssl
import sys

import uvicorn
from fastapi import FastAPI

from edge_core.errors import InvalidConfiguration
from fleet_server import transport
from fleet_server.app import create_app, create_watched
from fleet_server.broker.guard import BrokerGuard
from fleet_server.broker.process import Broker
from fleet_server.config import ServerConfig
from fleet_server.data_folder import only_server
from fleet_server.http_head import LimitedHead
from fleet_server.leader import Leader
from fleet_server.mqtt_gateway import MqttGateway
from fleet_server.services.clock import wall_clock
from fleet_server.services.suite import Services
from fleet_server.transport import ServerFiles

SWITCH_SECONDS = 0.0005
"""How long one thread computes while others wait. A list call reads a hundred rows, and after each
of them it may have to wait so long for the thread that stores windows; Python's own 5 ms add up."""

CERTIFICATE_SECONDS = 2
"""How often HTTPS looks whether its certificate was replaced."""


def run(config: ServerConfig) -> None:
    """Run the server until a signal ends it.

    Raises:
        InvalidConfiguration: a port or the data folder is taken, or a file is missing.
        Unavailable: the broker or the database cannot be used.
    """
    roles = config.process.roles
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_server(config.data))
        listener = stack.enter_context(_listen(config))
        services = Services.open(config)
        stack.callback(services.database.close)
        if changed := migrated(services):
            print(changed, flush=True)
        services.certificates.check_authority()
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


def migrated(services: Services) -> str:
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
