"""Attacks on the broker: who gets in, as whom, and what they may say and hear there."""

import contextlib
import socket
import ssl
import subprocess
import warnings
from pathlib import Path

from edge_core.messages import codec, topics
from edge_core.messages.telemetry import Online
from fleet_server.authority.device_ca import OWNER
from fleet_server.broker.files import MAX_PACKET_BYTES
from fleet_server.broker.handshake import ACCEPTED, CONNACK, knock
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig
from tests.security.fleet import SECONDS, Fleet, Stranger
from tests.security.scenario import Scenario, Tries, expect
from tests.simulators.enrolled_device import NAME, token_file
from tests.simulators.impostor import Impostor
from tests.simulators.mqtt_client import MqttClient
from tests.simulators.processes import command, free_port, wait_for

STALLED = 40
"""Connections that say nothing, at once."""
CONNECT = bytes([0x10, 13]) + b"\x00\x04MQTT\x04\x02\x00\x0a\x00\x01x"


def _strangers(fleet: Fleet, tries: Tries) -> None:
    server = fleet.server.data / "ca" / "server.pem"
    good = fleet.enrol("stranger-1").file
    for what, own in (
        ("no certificate", None),
        ("a foreign authority", fleet.foreign(NAME)),
        ("a certificate that has ended", fleet.expired(NAME)),
        ("a server's certificate", server),
    ):
        with tries(what):
            expect(fleet.knock(own) == "refused", f"{what} is let in")
    with tries("no TLS"), socket.create_connection(
        ("127.0.0.1", fleet.server.mqtt_port), timeout=SECONDS
    ) as plain:  # fmt: skip
        plain.sendall(CONNECT)
        with contextlib.suppress(ConnectionError):
            expect(plain.recv(4)[:1] != CONNACK[:1], "it speaks without TLS")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with tries(version.name):
            old = fleet.context(good)
            old.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                old.minimum_version = version
                old.maximum_version = version
            said = knock("127.0.0.1", fleet.server.mqtt_port, old, "x")
            expect(said == "refused", f"{version.name} is spoken")
    expect(fleet.knock(good) == "in", "not even a good certificate is let in")


def _false_servers(fleet: Fleet, tries: Tries) -> None:
    """Somebody between device and server; what it would hear is an enrolment token."""
    device = fleet.device
    token = token_file(fleet.server, device)
    config = device.config.read_text()
    for what, own in (
        ("a device's certificate in the server's place", fleet.enrol("false-1").file),
        ("a foreign authority in the server's place", fleet.foreign("127.0.0.1")),
    ):
        with tries(what), Impostor(own) as impostor:
            false = device.folder / "false.toml"
            changed = config.replace(f'server = "{fleet.server.url}"', f'server = "{impostor.url}"')
            false.write_text(changed.replace(str(device.state), str(device.folder / "other")))
            done = subprocess.run(
                [*command("serinus-agent"), "enrol", "--token-file", str(token),
                 "--config", str(false)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            expect((done.returncode, impostor.heard) == (2, []), f"it is spoken to: {done.stderr}")
            expect("certificate" in done.stderr, f"it does not say why: {done.stderr}")


def _revoked(fleet: Fleet, tries: Tries) -> None:
    lost = fleet.enrol("revoked-1")
    with fleet.mqtt(lost.file) as inside:
        fleet.server.client.revoke_certificates(device=lost.name, reason="stolen")
        with tries("a connection that was open"):
            wait_for(lambda: inside.losses == 1, seconds=SECONDS, what="its end")
    with tries("a new connection"):
        expect(fleet.knock(lost.file) == "refused", "it is let in")


def _topics(fleet: Fleet, tries: Tries) -> None:
    victim, attacker = fleet.enrol("victim-1"), fleet.enrol("attacker-1")
    with fleet.mqtt(victim.file) as held, fleet.mqtt(attacker.file) as inside:
        held.subscribe(_below(victim.name, "#"))
        held.publish(topics.up(victim.name, "online"), _online(victim.name))
        _known(fleet, victim.name)
        with tries("to speak as another device"):
            inside.publish(topics.up("ghost-1", "online"), _online("ghost-1"))
            inside.publish(topics.up(attacker.name, "online"), _online("ghost-2"))
            inside.publish(topics.up(attacker.name, "online"), _online(attacker.name))
            known = _known(fleet, attacker.name)
            expect(not {"ghost-1", "ghost-2"} & known, f"the server knows {known}")
        kinds: tuple[topics.DownKind, ...] = ("command", "desired")
        for kind in kinds:
            with tries(f"to leave another device a {kind} as if from the server"):
                inside.publish(topics.down(victim.name, kind), b"forged", retain=True)
                _nothing_forged(victim, held)
        with tries("a last will in another's name"):
            _die_with_will(fleet, attacker, topics.down(victim.name, "command"))
            _nothing_forged(victim, held)
        filters = (
            "#", "$SYS/#", _below(victim.name, "#"), f"{topics.PREFIX}/up/#", "+/+/+/+/+",
            f"$share/g/{_below(victim.name, '#')}",
        )  # fmt: skip
        for one in filters:
            with tries(f"to hear {one}"), fleet.mqtt(attacker.file) as spying:
                spying.subscribe(one, _below(attacker.name, "#"))
                before = len(held.came)
                _order(fleet, victim.name)
                wait_for(lambda n=before: len(held.came) > n, seconds=SECONDS, what="an order")  # type: ignore[misc]
                held.publish(topics.up(victim.name, "online"), _online(victim.name))
                _order(fleet, attacker.name)
                own = _below(attacker.name, "")
                wait_for(
                    lambda s=spying, o=own: any(topic.startswith(o) for topic, _ in s.came),  # type: ignore[misc]
                    seconds=SECONDS, what="an order of its own",
                )  # fmt: skip
                others = [topic for topic, _ in spying.came if not topic.startswith(own)]
                expect(others == [], f"it heard {others}")


def _below(name: str, rest: str) -> str:
    """A filter of topics on which the server speaks to a device."""
    return f"{topics.PREFIX}/down/{name}/{rest}"


def _online(name: str) -> bytes:
    return codec.encode(Online(device=name, online=True))


def _known(fleet: Fleet, name: str) -> set[str]:
    """Names that the server knows, once this one is among them."""
    known: set[str] = set()

    def heard() -> bool:
        nonlocal known
        known = {row["device"] for row in fleet.server.client.devices()}
        return name in known

    wait_for(heard, seconds=SECONDS, what=f"the server to hear of {name}")
    return known


def _order(fleet: Fleet, name: str) -> None:
    fleet.server.client.fallback_off([name], model=fleet.release.model)


def _die_with_will(fleet: Fleet, attacker: Stranger, topic: str) -> None:
    """Connect with a will for a topic, and be gone without a word."""
    with fleet.line(attacker.file) as line:
        line.sendall(_connect("x", will=topic))
        line.recv(4)


def _connect(client: str, *, will: str = "", user: str = "") -> bytes:
    """A CONNECT (MQTT 3.1.1, section 3.1)."""
    flags = 2 | (0x24 if will else 0) | (0xC0 if user else 0)
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x0a" + _text(client)
    if will:
        body += _text(will) + _text("forged")
    if user:
        body += _text(user) + _text("x")
    return bytes([0x10, len(body)]) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _nothing_forged(victim: Stranger, held: MqttClient) -> None:
    held.subscribe(_below(victim.name, "+"))  # what was left for it comes again now
    expect(held.losses == 0, "it was thrown off")
    expect(all(payload != b"forged" for _, payload in held.came), "forged messages came")


def _names(fleet: Fleet, tries: Tries) -> None:
    victim, attacker = fleet.enrol("held-1"), fleet.enrol("taker-1")
    with fleet.mqtt(victim.file, "serinus-held-1") as held:
        held.subscribe(_below(victim.name, "#"))
        for name in (victim.name, "serinus-held-1", OWNER, NAME, "serinus-server"):
            with tries(f"the client id {name}"):
                expect(fleet.knock(attacker.file, name) == "in", "it is not itself either")
                held.publish(topics.up(victim.name, "online"), _online(victim.name))
                expect(held.losses == 0, "the other was thrown off")
        for name in (victim.name, OWNER):
            with tries(f"the user name {name}"), fleet.line(attacker.file) as line:
                line.sendall(_connect(name, user=name))
                expect(line.recv(4)[3:] == bytes([ACCEPTED]), "it is not itself either")
                topic = topics.down(victim.name, "command")
                line.sendall(_publish(topic, b"forged"))
                line.sendall(b"\xc0\x00")  # answered once all before it was looked at
                line.recv(2)
                _nothing_forged(victim, held)


def _publish(topic: str, payload: bytes) -> bytes:
    body = _text(topic) + payload
    return bytes([0x30, len(body)]) + body


def _packets(fleet: Fleet, tries: Tries) -> None:
    own = fleet.enrol("packets-1").file
    topic = topics.up("packets-1", "stats")
    with tries("a packet that is larger than any"), fleet.mqtt(own) as inside:
        inside.send(topic, bytes(MAX_PACKET_BYTES + 1))
        wait_for(lambda: inside.losses == 1, seconds=SECONDS, what="its end")
    for what, data in (
        ("no MQTT at all", b"GET / HTTP/1.1\r\n\r\n"),
        ("a length without an end", b"\x10\xff\xff\xff\xff\xff"),
        ("a packet before CONNECT", b"\x30\x05\x00\x01axx"),
        ("a protocol of another name", CONNECT.replace(b"MQTT", b"QTTM")),
        ("a reserved packet", CONNECT + b"\xf0\x00"),
        ("CONNECT twice", CONNECT + CONNECT),
        ("QoS 3", CONNECT + b"\x36\x05\x00\x01a\x00\x01"),
        ("a wildcard in a topic", CONNECT + b"\x32\x05\x00\x01#\x00\x01"),
        ("a topic that is no UTF-8", CONNECT + b"\x32\x06\x00\x02\xff\xfe\x00\x01"),
        ("a topic that is longer than its packet", CONNECT + b"\x32\x04\xff\xff\x00\x01"),
    ):  # fmt: skip
        with tries(what), fleet.line(own) as line:
            line.sendall(data)
            _ended(line)
    for what, data in (("half a CONNECT", CONNECT[:7]), ("a CONNECT of one byte", CONNECT[:1])):
        with tries(what):
            with fleet.line(own) as line:
                line.sendall(data)
            expect(fleet.knock(own) == "in", "nobody is let in after it")


def _ended(line: ssl.SSLSocket) -> None:
    """See the broker end a connection; raises where it goes on."""
    with contextlib.suppress(ConnectionError):
        while line.recv(4096):
            pass


def _stalls(fleet: Fleet, tries: Tries) -> None:
    own = fleet.enrol("stalls-1").file
    for what, said in (
        ("handshakes that do not begin", b""),
        ("handshakes that do not end", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ):
        with tries(what), contextlib.ExitStack() as stack:
            for _ in range(STALLED):
                place = ("127.0.0.1", fleet.server.mqtt_port)
                plain = stack.enter_context(socket.create_connection(place, timeout=SECONDS))
                plain.sendall(said)
            expect(fleet.knock(own) == "in", "nobody else is let in")


def _embedded(fleet: Fleet, tries: Tries) -> None:
    folder = fleet.server.folder / "embedded"
    folder.mkdir()
    refused = {
        what: _embedded_server(folder / f"{number}.toml", line)
        for number, (what, line) in enumerate(
            (("beyond loopback", 'host = "0.0.0.0"'), ("with TLS that it has not", "tls = true"))
        )
    }
    try:
        for what, process in refused.items():
            with tries(f"the embedded broker {what}"):
                _, said = process.communicate(timeout=SECONDS)
                expect(process.returncode == 2, f"it starts: {said}")
                expect("127.0.0.1" in said, f"it does not say where it stays: {said}")
    finally:
        for process in refused.values():
            process.kill()
            process.communicate(timeout=SECONDS)
    port = free_port()
    broker = Broker(MqttConfig(broker="embedded", port=port), folder).start()
    try:
        expect(_listens("127.0.0.1", port), "it does not even listen on loopback")
        with tries("the embedded broker from another address"):
            expect(not _listens("127.0.0.2", port), "it listens on more than 127.0.0.1")
    finally:
        broker.stop()


def _embedded_server(settings: Path, line: str) -> "subprocess.Popen[str]":
    settings.write_text(
        f'data_dir = "{settings.with_suffix("")}"\nport = {free_port()}\n'
        f'[mqtt]\nbroker = "embedded"\nport = {free_port()}\n{line}\n'
    )
    arguments = [*command("serinus-server"), "run", "--config", str(settings)]
    return subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


SCENARIOS = [
    Scenario(name="broker_strangers", what="certificates of others, or old TLS", run=_strangers),
    Scenario(name="false_servers", what="to stand in the server's place", run=_false_servers),
    Scenario(name="revoked_devices", what="a revoked certificate, new and open", run=_revoked),
    Scenario(name="broker_topics", what="another's topics, up and down", run=_topics),
    Scenario(name="broker_names", what="another's client id and user name", run=_names),
    Scenario(name="broker_packets", what="packets too large or malformed", run=_packets),
    Scenario(name="broker_stalls", what="handshakes that never end", run=_stalls),
    Scenario(name="embedded_broker", what="the built-in broker from outside", run=_embedded),
]
