"""A real server with TLS, its mosquitto, and a real enrolled device, for attacks from outside."""

import contextlib
import itertools
import socket
import ssl
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from edge_core.messages.enrolment import Enrolled
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.broker.handshake import knock, pinned
from fleet_server.services.clock import wall_clock
from tests.simulators.enrolled_device import agent, device_of, token_file
from tests.simulators.enrolling import Applicant
from tests.simulators.mqtt_client import MqttClient
from tests.simulators.processes import wait_for
from tests.simulators.server import FleetServer

SECONDS = 20.0
"""How long anything may take before it counts as never."""
DAY_SECONDS = 86_400.0
CONNECTED = "broker: connected"


class Stranger:
    """A certificate that the fleet's authority made for a key of the attacker's."""

    def __init__(self, fleet: "Fleet", applicant: Applicant, enrolled: Enrolled) -> None:
        self.name = applicant.device
        self.applicant = applicant
        self.enrolled = enrolled
        self.file = fleet.file(applicant.pem(enrolled))


class Fleet:
    """Everything runs once for all attacks; each attacker has an address of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "server").mkdir(parents=True)
        self._numbers = itertools.count(2)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.server = stack.enter_context(
                FleetServer(
                    self._folder / "server", broker="mosquitto", certificate_seconds=DAY_SECONDS
                )
            )
            self.release = self.server.publish("1.0.0")
            self.device = device_of(self.server, self._folder / "d")
            self.device.order(self.release, 0)
            code, said = agent(
                self.device, "enrol", "--token-file", token_file(self.server, self.device)
            )
            if code != 0:
                raise RuntimeError(said)
            self.agent = stack.enter_context(self.device.agent())
            wait_for(
                lambda: self.device.serves() == "1.0.0" and self._connected(),
                seconds=2 * SECONDS,
                what="the enrolled device",
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def silent(self) -> str:
        """Who of the server and the device answers no more; empty where both do."""
        ready = self.visitor().get("/readyz")
        if ready.status_code != httpx.codes.OK:
            return f"the server is not ready: {ready.text[:300]}"
        if self.device.serves() != "1.0.0":
            return "the device answers no prediction"
        if not self._connected() or self.agent.text().count(CONNECTED) != 1:
            return "the device was thrown off the broker"
        return ""

    def _connected(self) -> bool:
        return self.device.status().get("connected") is True

    # What an attacker has in hand.

    def file(self, pem: bytes) -> Path:
        """Keep a key or certificate in a file of its own."""
        path = self._folder / f"{next(self._numbers)}.pem"
        path.write_bytes(pem)
        return path

    def enrol(self, name: str) -> Stranger:
        """A device of the attacker's that was let in; or a victim."""
        applicant = Applicant(name)
        body = applicant.enrolment(self.server.client.create_enrol_token(name))
        answer = self.visitor().post("/api/v1/enrol", json=msgspec.to_builtins(body))
        if answer.status_code != httpx.codes.CREATED:
            raise RuntimeError(answer.text)
        return Stranger(self, applicant, msgspec.convert(answer.json(), Enrolled))

    @cached_property
    def authority(self) -> DeviceCa:
        """The fleet's, to make what only a broken one would."""
        return DeviceCa(self.server.data / "ca")

    @cached_property
    def other_authority(self) -> DeviceCa:
        """One that nobody here trusts."""
        return DeviceCa(self._folder / "other-ca")

    def expired(self, name: str) -> Path:
        """A certificate of the fleet's authority that has ended."""
        life = timedelta(milliseconds=1)
        return self.file(self.authority.identity(name, now_ms=wall_clock(), life=life)[1])

    def foreign(self, name: str) -> Path:
        """A certificate of another authority."""
        return self.file(self.other_authority.identity(name, now_ms=wall_clock())[1])

    # Ways in.

    def visitor(self, token: str = "", *, address: str = "", **options: Any) -> httpx.Client:
        """An HTTP client at an address of its own, for wrong tokens count by address."""
        trusting = ssl.create_default_context(cafile=self.server.ca_file)
        transport = httpx.HTTPTransport(verify=trusting, local_address=address or self.address())
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._stack.enter_context(
            httpx.Client(
                transport=transport,
                base_url=self.server.url,
                headers=headers,
                timeout=SECONDS,
                **options,
            )
        )

    def address(self) -> str:
        """One of this machine's own that nobody had before."""
        high, low = divmod(next(self._numbers), 250)
        return f"127.0.{high + 1}.{low + 2}"

    def context(self, own: Path | None) -> ssl.SSLContext:
        """TLS with the broker, with a certificate or without."""
        if own is not None:
            return pinned(self.server.data / "ca" / "server.pem", own)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.server.ca_file)
        return context

    def knock(self, own: Path | None, name: str = "x") -> str:
        """What the broker answers to a certificate: ``in`` or ``refused``."""
        return knock("127.0.0.1", self.server.mqtt_port, self.context(own), name)

    def mqtt(self, own: Path, name: str = "x") -> MqttClient:
        """A client that stays."""
        return MqttClient(self.context(own), self.server.mqtt_port, name)

    def line(self, own: Path) -> ssl.SSLSocket:
        """A connection to the broker on which nothing was said yet."""
        plain = socket.create_connection(("127.0.0.1", self.server.mqtt_port), timeout=SECONDS)
        return self.context(own).wrap_socket(plain, server_hostname="127.0.0.1")

    def web_line(self) -> ssl.SSLSocket:
        """A connection to the server on which nothing was said yet."""
        plain = socket.create_connection(("127.0.0.1", self.server.port), timeout=SECONDS)
        trusting = ssl.create_default_context(cafile=self.server.ca_file)
        return trusting.wrap_socket(plain, server_hostname="127.0.0.1")
