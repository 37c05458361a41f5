"""The agent's settings: the only reader of files and the only place for defaults."""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from edge_core.errors import InvalidConfiguration
from edge_core.messages.telemetry import Name
from edge_core.messages.topics import DEVICE_PATTERN

MAX_CONFIG_BYTES = 64 * 1024

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file; unknown keys are refused."""


class Repository(_Section, frozen=True, kw_only=True):
    """Where approved releases come from."""

    url: str
    """The release repository, without ``/metadata``."""
    trusted_root: Path
    """The root metadata that came with the device; later roots are followed from it."""
    ca_file: Path | None = None
    """Whose certificate its server has to have (PEM); none: any authority this machine trusts."""


class Mqtt(_Section, frozen=True, kw_only=True):
    """The fleet's broker."""

    host: str
    """Its name or address."""
    port: Port = 1883
    username: str | None = None
    password: str | None = None
    """Never shown, neither by check-config nor in a log."""
    ca_file: Path | None = None
    """Whose certificate the broker has to have (PEM), over TLS; none: no TLS, or that of
    [identity]."""


class Identity(_Section, frozen=True, kw_only=True):
    """How the device proves who it is: a certificate of the fleet's authority."""

    server: str
    """Address of the fleet's server, https://…"""
    ca_file: Path
    """Whose certificate the server and the broker have to have (PEM), until the device has learnt
    of others with its own certificate; another file makes that void."""
    pkcs11_module: Path | None = None
    """Library of a PKCS#11 module, such as libtpm2_pkcs11.so: a key in it vouches for the device.
    Needs the extra ``pkcs11``, pkcs11_token and pkcs11_pin_file."""
    pkcs11_token: str | None = None
    """Label of the module's token that holds the key."""
    pkcs11_pin_file: Path | None = None
    """File with the token's PIN, readable by the agent's user alone."""
    pkcs11_label: str = "serinus"
    """The key's label; it is made where there is none."""

    def __post_init__(self) -> None:
        together = (self.pkcs11_module, self.pkcs11_token, self.pkcs11_pin_file)
        if any(together) and not all(together):
            raise ValueError("pkcs11_module, pkcs11_token and pkcs11_pin_file go together")
        parts = urlsplit(self.server)
        local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
        if not (parts.scheme == "https" and parts.hostname) and not local:
            raise ValueError(f"identity.server {self.server!r} is no https:// address")


class Serving(_Section, frozen=True, kw_only=True):
    """How applications reach the agent."""

    socket: Path
    """Unix socket for applications."""
    rest_port: Port = 0
    """Port of the Open Inference Protocol on 127.0.0.1; 0 leaves it off."""
    grpc_port: Port = 0
    """Port of the same over gRPC, which needs the extra ``grpc``; 0 leaves it off."""
    max_queue_rows: Annotated[int, msgspec.Meta(ge=1)] = 4096
    """Rows that may wait for the model; more are refused as overloaded."""
    socket_mode: Annotated[str, msgspec.Meta(pattern=r"^0?[0-7]{3}\Z")] = "0600"
    """Who may open the socket, as chmod has it."""
    cache_rows: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Answers that each model keeps for rows that come again; 0 for none."""
    prediction_log_bytes: Annotated[int, msgspec.Meta(ge=0)] = 8 * 1024 * 1024
    """Of ``predictions.log`` and the older one together; 0 for none."""
    consumers: list[Name] = []
    """Who is known to ask, such as ``uid:1000/camera.py``; ``status`` names others."""
    shadow_cpu_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """Of one core that shadows may use; rows beyond it are not compared, and counted."""


class Fallback(_Section, frozen=True, kw_only=True):
    """When the baseline answers instead of the model."""

    missing: Literal["fallback", "refuse"] = "fallback"
    """What becomes of rows that lack inputs which the release's null policy refuses: the baseline
    answers them, or nobody."""
    failures_in_a_row: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Failed batches after which the model is left alone for a while."""
    failure_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """So is one that failed in this share of the latest ``share_batches`` batches."""
    share_batches: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 50
    pause_seconds: Positive = 5.0
    """The first pause; each failed try doubles it."""
    longest_pause_seconds: Positive = 300.0


class Telemetry(_Section, frozen=True, kw_only=True):
    """What the agent tells the fleet, and how much it keeps while offline."""

    window_seconds: Positive = 60.0
    """Length of one window of statistics."""
    sample_every: Annotated[int, msgspec.Meta(ge=1)] = 100
    """One prediction in so many is sent with its inputs."""
    outbox_bytes: Annotated[int, msgspec.Meta(ge=65536)] = 64 * 1024 * 1024
    """What may wait on the disk while the device is offline."""


class Memory(_Section, frozen=True, kw_only=True):
    """How what features remember outlasts the process."""

    store_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """How often it is stored while it changes; 0: only when the agent is stopped."""
    max_age_seconds: Positive = 7 * 86400.0
    """What was stored longer ago is not used any more."""
    max_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 64 * 1024 * 1024


class Update(_Section, frozen=True, kw_only=True):
    """How carefully a new release is taken in."""

    probation_seconds: Positive = 60.0
    """How long a new release is watched at least before it stays."""
    probation_rows: Annotated[int, msgspec.Meta(ge=0)] = 100
    """Rows that it has to answer within that time."""
    max_error_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    """With more errors the release before is taken again."""
    max_starts: Annotated[int, msgspec.Meta(ge=1)] = 3
    """Starts in one state of an update after which its release is taken for one that crashes."""
    max_attempts: Annotated[int, msgspec.Meta(ge=1)] = 10
    """Downloads in a row that brought nothing, after which the update fails and says why."""
    retry_seconds: Positive = 1.0
    """First pause after a failed download; doubled each time, with jitter, up to a minute."""
    quota_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """What releases may take on this device's disk; without it, as much as is free."""
    max_bytes_per_second: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Limit of a download; without it, as fast as it goes."""
    min_bytes_per_second: Annotated[int, msgspec.Meta(ge=1)] = 1024
    """A download that is slower on average is ended, and tried again."""
    stall_seconds: Positive = 20.0
    """Longest silence of a server."""
    max_latency_factor: Annotated[float, msgspec.Meta(ge=1)] = 4.0
    """How much slower than the release before a new one may be, where it is over its budget."""
    max_divergence: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    """How far a new release's answers may be from earlier ones and from its reference, 0 to 1."""
    hang_seconds: Positive = 60.0
    """Where answering one batch, or opening a model, takes longer, ``/healthz`` says so and the
    process is ended."""


class Sideload(_Section, frozen=True, kw_only=True):
    """Whose signatures are accepted on bundles that are carried by hand."""

    keys: list[Path] = []
    """Public keys (PEM); empty refuses every bundle that is carried by hand."""


class Log(_Section, frozen=True, kw_only=True):
    """What the agent writes to its standard output for people and collectors."""

    format: Literal["text", "json"] = "text"
    """``json``: one object a line, with the device, its release and the state of its update."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Less serious lines are left out."""


class AgentConfig(_Section, frozen=True, kw_only=True):
    """Everything that the agent is told from outside."""

    device: str
    """This device's name in the fleet."""
    target: Name
    """Which variant of a release it runs; 'serinus-convert targets' lists them."""
    state_dir: Path
    """Folder for releases, the journal of updates and unsent messages."""
    slices: dict[Name, Name] = {}
    """What this device belongs to, such as ``{ side = "left" }``; releases declare the names."""
    repository: Repository | None = None
    mqtt: Mqtt | None = None
    identity: Identity | None = None
    serving: Serving
    fallback: Fallback = Fallback()
    telemetry: Telemetry = Telemetry()
    memory: Memory = Memory()
    update: Update = Update()
    sideload: Sideload = Sideload()
    log: Log = Log()

    def __post_init__(self) -> None:
        if not DEVICE_PATTERN.match(self.device):
            raise ValueError(f"device {self.device!r} does not match {DEVICE_PATTERN.pattern}")
        if (self.repository is None) != (self.mqtt is None):
            raise ValueError("[repository] and [mqtt] go together: a fleet needs both")

    @property
    def broker_ca(self) -> Path | None:
        """Whose certificate the broker has to have; none: no TLS."""
        if self.mqtt is not None and self.mqtt.ca_file is not None:
            return self.mqtt.ca_file
        return self.identity.ca_file if self.identity is not None else None


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor that started this process expects, such as systemd."""

    address: str | None = None
    """Its socket: a path, or ``@`` and an abstract name; none without a supervisor."""
    watchdog_seconds: float | None = None
    """It ends the process where that is silent for longer; none where it does not watch."""


def supervision() -> Supervision:
    """Read what sd_notify(3) and sd_watchdog_enabled(3) pass on; odd values count as none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    watched = for_us and microseconds.isascii() and microseconds.isdigit() and int(microseconds)
    return Supervision(
        address=address if address[:1] in ("/", "@") else None,
        watchdog_seconds=int(microseconds) / 1e6 if watched else None,
    )


def load(path: Path) -> AgentConfig:
    """Read and check a settings file; relative paths are below the file's folder.

    Raises:
        InvalidConfiguration: in one line, the file, the key and what is allowed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the settings file {path}: {error.strerror}"
        ) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise InvalidConfiguration(f"{path} has more than {MAX_CONFIG_BYTES} bytes")
    try:
        raw = tomllib.loads(data.decode())
        config = msgspec.convert(raw, AgentConfig, dec_hook=_decode_path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InvalidConfiguration(f"{path}: {_explained(error)}") from error
    return _anchored(config, path.parent)


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise NotImplementedError(kind)


def _explained(error: Exception) -> str:
    """Name the known keys where an unknown one was used."""
    text = str(error)
    unknown = re.match(r"Object contains unknown field `(.*?)`(?: - at `\$\.?(.*?)`)?$", text)
    if not unknown:
        return text
    section = unknown[2] or ""
    table: type[msgspec.Struct] = AgentConfig
    for name, kind in _SECTIONS.items():
        if section == name:
            table = kind
    known = ", ".join(table.__struct_fields__)
    where = f" in [{section}]" if section else ""
    return f"unknown key {unknown[1]!r}{where}; known are {known}"


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "repository": Repository,
    "mqtt": Mqtt,
    "identity": Identity,
    "serving": Serving,
    "fallback": Fallback,
    "telemetry": Telemetry,
    "memory": Memory,
    "update": Update,
    "sideload": Sideload,
    "log": Log,
}


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent takes from the environment: how its output is read, nothing else."""

    journal_stream: str = ""
    """Device and inode of the journal's socket, where systemd connected one."""
    no_colour: bool = False
    """See no-color.org."""


def environment() -> Environment:
    """Read the environment."""
    return Environment(
        journal_stream=os.environ.get("JOURNAL_STREAM", ""),
        no_colour=bool(os.environ.get("NO_COLOR")),
    )


def _anchored(config: AgentConfig, folder: Path) -> AgentConfig:
    replace = msgspec.structs.replace
    config = replace(
        config,
        state_dir=folder / config.state_dir,
        serving=replace(config.serving, socket=folder / config.serving.socket),
        sideload=replace(config.sideload, keys=[folder / key for key in config.sideload.keys]),
    )
    if config.repository is not None:
        root = folder / config.repository.trusted_root
        ca_file = _below(folder, config.repository.ca_file)
        repository = replace(config.repository, trusted_root=root, ca_file=ca_file)
        config = replace(config, repository=repository)
    if config.mqtt is not None:
        mqtt = replace(config.mqtt, ca_file=_below(folder, config.mqtt.ca_file))
        config = replace(config, mqtt=mqtt)
    if config.identity is not None:
        config = replace(config, identity=_anchored_identity(config.identity, folder))
    return config


def _anchored_identity(identity: Identity, folder: Path) -> Identity:
    return msgspec.structs.replace(
        identity,
        ca_file=folder / identity.ca_file,
        pkcs11_module=_below(folder, identity.pkcs11_module),
        pkcs11_pin_file=_below(folder, identity.pkcs11_pin_file),
    )


def _below(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else folder / path
