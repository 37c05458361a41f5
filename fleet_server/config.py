"""The server's settings: one TOML file, none needed; the only place with defaults."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from edge_core.errors import InvalidConfiguration
from fleet_server.domain.permissions import Role

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
ProcessRole = Literal["api", "ingest", "decide"]
MAX_PASSPHRASE_BYTES = 1000
BrokerKind = Literal["auto", "mosquitto", "embedded", "external"]


LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the settings file; unknown keys are refused."""


class MqttConfig(_Section, frozen=True, kw_only=True):
    """Which broker, and where."""

    broker: BrokerKind = "auto"
    """``auto``: mosquitto where it is found, else the embedded one, both on loopback."""
    host: str = "127.0.0.1"
    """Where an external broker is, or where the server's own listens: beyond loopback only with
    ``tls``."""
    port: Port = 1883
    tls: bool = False
    """Every client has to show a certificate of the fleet's authority, which is its name; needs
    ``[tls]`` and mosquitto."""
    ca_file: str | None = None
    """Of an external broker: whose certificate it has."""
    certificate: str | None = None
    """Of an external broker: certificate and key (one PEM file) that the server shows."""
    username: str | None = None
    password: str | None = None
    client_id: str = "serinus-server"
    queue: Annotated[int, msgspec.Meta(ge=10, le=1_000_000)] = 5000
    """Messages held in memory between the network and the database."""
    shared: bool = False
    """Several processes divide what devices send, each with a ``client_id`` of its own."""

    def __post_init__(self) -> None:
        if self.broker == "external":
            if self.tls and self.ca_file is None:
                raise ValueError("mqtt.tls of an external broker needs mqtt.ca_file")
            return
        if self.ca_file or self.certificate:
            raise ValueError("mqtt.ca_file and mqtt.certificate are only for broker = 'external'")
        if self.tls and self.broker == "embedded":
            raise ValueError(
                "the embedded broker knows no certificates and stays on 127.0.0.1: install "
                "mosquitto, or set mqtt.tls = false"
            )
        if not self.tls and self.host not in LOOPBACK:
            raise ValueError(
                f"mqtt.host = {self.host!r}: the server's own broker stays on 127.0.0.1 unless "
                "mqtt.tls = true; or set broker = 'external'"
            )

    @property
    def reached_at(self) -> str:
        """Where the server itself connects to."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host


class DatabaseConfig(_Section, frozen=True, kw_only=True):
    """Where everything is stored."""

    url: str | None = None
    """``postgresql+pg8000://user:password@host/database``; a SQLite file in the data folder where
    left out."""

    def __post_init__(self) -> None:
        if self.url is not None and not self.url.startswith("postgresql+pg8000://"):
            raise ValueError(
                "database.url begins with postgresql+pg8000://; leave it out for SQLite"
            )


class ProcessConfig(_Section, frozen=True, kw_only=True):
    """What this process does, where several serve one fleet on one PostgreSQL database."""

    roles: tuple[ProcessRole, ...] = ("api", "ingest", "decide")
    """``api`` answers HTTP, ``ingest`` stores what devices send, ``decide`` stands by to lead."""

    def __post_init__(self) -> None:
        if not self.roles or len(set(self.roles)) != len(self.roles):
            raise ValueError("process.roles names at least one role, and none twice")
        if "decide" in self.roles and "ingest" not in self.roles:
            raise ValueError(
                "process.roles: who decides has to hear devices, or would take them for silent: "
                "add 'ingest'"
            )

    @property
    def alone(self) -> bool:
        """Whether it does everything."""
        return set(self.roles) == set(get_args(ProcessRole))


class WindowsConfig(_Section, frozen=True, kw_only=True):
    """How statistics windows are taken in and how often one decides."""

    decide_every_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 2.0
    drift_period_seconds: Annotated[float, msgspec.Meta(ge=0.5, le=86400)] = 10.0
    """Windows are merged over this time before the drift detectors see them."""
    future_seconds: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    """A window that closes later than this from now is refused."""


class DevicesConfig(_Section, frozen=True, kw_only=True):
    """How devices are spoken to."""

    republish_seconds: Annotated[float, msgspec.Meta(ge=0.5)] = 15.0
    """The desired state is sent again this long after it was ignored."""
    confirm_seconds: Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)] | None = 900.0
    """A device goes back from a candidate that passed its trial where the server does not hear it
    within this time."""


class RepositoryConfig(_Section, frozen=True, kw_only=True):
    """Where the approved releases are, and the keys that keep the list fresh."""

    path: str | None = None
    """Default: ``repository`` below the data folder."""
    online_keys: str | None = None
    """Folder with the snapshot and timestamp keys. Default: ``online`` below the data folder."""
    online_passphrase_file: str | None = None
    """File whose first line opens these keys, where they are encrypted."""
    trusted_root: str | None = None
    """Root metadata to start from. Default: the repository's first root, pinned once seen."""
    check_every_seconds: Annotated[float, msgspec.Meta(ge=0.1)] = 1.0
    snapshot_days: Annotated[float, msgspec.Meta(gt=0)] = 7.0
    timestamp_days: Annotated[float, msgspec.Meta(gt=0)] = 1.0

    def online_passphrase(self) -> bytes | None:
        """What opens the keys; raise :class:`InvalidConfiguration` where it cannot be read."""
        if self.online_passphrase_file is None:
            return None
        try:
            with Path(self.online_passphrase_file).open("rb") as stream:
                found = stream.readline(MAX_PASSPHRASE_BYTES).rstrip(b"\r\n")
        except OSError as error:
            raise InvalidConfiguration(
                f"cannot read repository.online_passphrase_file: {error}"
            ) from error
        if not found:
            raise InvalidConfiguration(
                f"the first line of {self.online_passphrase_file} "
                "(repository.online_passphrase_file) is empty"
            )
        return found


class RetentionConfig(_Section, frozen=True, kw_only=True):
    """How long the database remembers; sums, verdicts and rollouts are kept for good."""

    window_days: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """Statistics windows as they came; what they add up to is kept."""
    hour_days: Annotated[float, msgspec.Meta(ge=1)] = 90.0
    """Sums by hour; sums by day are kept for good."""
    event_days: Annotated[float, msgspec.Meta(ge=1)] = 180.0
    """Events and closed alerts."""
    run_days: Annotated[float, msgspec.Meta(ge=1)] = 730.0
    """Which device ran which release when; what was in production is kept for good."""


class WebhooksConfig(_Section, frozen=True, kw_only=True):
    """Where events are told."""

    private: bool = False
    """Whether receivers may be in private networks and on this machine."""


class LabelsConfig(_Section, frozen=True, kw_only=True):
    """How long predictions are kept for labels that come late."""

    prediction_days: Annotated[float, msgspec.Meta(ge=1)] = 90.0
    """What a label finds: the answer, its release and slices; counts of outcomes stay."""
    sample_days: Annotated[float, msgspec.Meta(ge=0)] = 7.0
    """What an answer was computed from; of contested answers it is kept."""
    waiting_days: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Labels whose prediction is not known yet."""


class FairnessConfig(_Section, frozen=True, kw_only=True):
    """When a slice that fares worse than the others raises an alert."""

    margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    """Accuracy that a slice may lie below all other rows."""
    min_rows: Annotated[int, msgspec.Meta(ge=1)] = 50
    """Labelled rows below which a slice's figure is not judged, only shown."""
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.01
    """Chance of one false alert over all of a release's slices, however long one looks."""
    rows_per_observation: Annotated[float, msgspec.Meta(ge=1)] = 5.0
    """Rows of one device overlap; evidence is raised to the power of 1 over this."""
    device_correlation: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """How alike a device's rows are beyond that: many rows of few devices weigh less."""


class OidcConfig(_Section, frozen=True, kw_only=True):
    """Accounts that people log in to the page with; none by default."""

    issuer: str = ""
    """Address of the provider, such as https://login.example; empty: there is none."""
    client_id: str = "serinus"
    client_secret_file: str | None = None
    """File with the client's secret; left out for a public client."""
    public_url: str = ""
    """This server's address as browsers see it, such as https://fleet.example."""
    name: str = "your account"
    """As the log-in page calls it."""
    name_claim: str = "email"
    role_claim: str = "groups"
    roles: dict[str, Role] = {}
    """Group -> role; whoever is in none is refused."""

    def __post_init__(self) -> None:
        if not self.issuer:
            return
        for what, url in (("issuer", self.issuer), ("public_url", self.public_url)):
            parts = urlsplit(url)
            local = parts.hostname in ("localhost", "127.0.0.1", "::1")
            if parts.scheme != "https" and not (parts.scheme == "http" and local):
                raise ValueError(f"oidc.{what} is an https:// address")
        if not self.roles:
            raise ValueError("oidc.roles says which group has which role; nobody could log in")

    def secret(self) -> str | None:
        """The client's secret; raise :class:`InvalidConfiguration` where it cannot be read."""
        if self.client_secret_file is None:
            return None
        try:
            return Path(self.client_secret_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(f"cannot read oidc.client_secret_file: {error}") from error


class RequestsConfig(_Section, frozen=True, kw_only=True):
    """How many requests one caller may make; each process counts for itself."""

    per_second: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Of one token, on the average of ten seconds."""
    refused_per_minute: Annotated[int, msgspec.Meta(ge=1)] = 60
    """Wrong tokens from one address; then it has to wait."""


class TlsConfig(_Section, frozen=True, kw_only=True):
    """How the API and the repository are reached."""

    mode: Literal["off", "fleet", "files", "proxy"] = "off"
    """``off``: plain HTTP, on loopback only. ``fleet``: a certificate of the fleet's own authority,
    made by ``serinus-server certificate NAME``. ``files``: the one named below. ``proxy``: plain
    HTTP, for a proxy before the server terminates TLS."""
    certificate: str | None = None
    """Certificate and chain (PEM), for ``files``."""
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.mode == "files") != (self.certificate is not None and self.key is not None):
            raise ValueError("tls.certificate and tls.key go with tls.mode = 'files'")

    @property
    def on(self) -> bool:
        """Whether the server itself speaks TLS."""
        return self.mode in ("fleet", "files")


class EnrolmentConfig(_Section, frozen=True, kw_only=True):
    """Certificates of devices."""

    certificate_days: Annotated[float, msgspec.Meta(gt=0, le=398)] = 30.0
    """How long one is valid; devices renew it after two thirds of that."""
    ca_dir: str | None = None
    """Folder of the authority's key. Default: ``ca`` below the data folder."""


class ServerConfig(_Section, frozen=True, kw_only=True):
    """Everything that can be set."""

    data_dir: str = "serinus-data"
    host: str = "127.0.0.1"
    port: Port = 8321
    database: DatabaseConfig = DatabaseConfig()
    process: ProcessConfig = ProcessConfig()
    mqtt: MqttConfig = MqttConfig()
    windows: WindowsConfig = WindowsConfig()
    devices: DevicesConfig = DevicesConfig()
    repository: RepositoryConfig = RepositoryConfig()
    retention: RetentionConfig = RetentionConfig()
    labels: LabelsConfig = LabelsConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    oidc: OidcConfig = OidcConfig()
    requests: RequestsConfig = RequestsConfig()
    tls: TlsConfig = TlsConfig()
    enrolment: EnrolmentConfig = EnrolmentConfig()
    fairness: FairnessConfig = FairnessConfig()

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and self.tls.mode == "off":
            raise ValueError(
                f"host = {self.host!r} would speak plain HTTP beyond this machine: set tls.mode = "
                "'fleet' or 'files', or 'proxy' where a proxy terminates TLS"
            )
        if self.mqtt.tls and self.mqtt.broker != "external" and not self.tls.on:
            raise ValueError(
                "mqtt.tls needs the server's certificate: set tls.mode = 'fleet' or 'files'"
            )
        if self.process.alone and not self.mqtt.shared:
            return
        if self.database.url is None:
            raise ValueError(
                "several processes need one PostgreSQL database: set database.url, or leave out "
                "process.roles and mqtt.shared"
            )
        if self.mqtt.broker != "external":
            raise ValueError(
                "several processes need one broker that belongs to none of them: set mqtt.broker "
                "= 'external', or leave out process.roles and mqtt.shared"
            )

    @property
    def data(self) -> Path:
        """Folder of the database, the broker's files, keys and token."""
        return Path(self.data_dir)

    @property
    def repository_dir(self) -> Path:
        """The TUF repository's folder."""
        return Path(self.repository.path) if self.repository.path else self.data / "repository"

    @property
    def online_keys_dir(self) -> Path:
        """Folder of the snapshot and timestamp keys."""
        keys = self.repository.online_keys
        return Path(keys) if keys else self.data / "online"

    @property
    def token_file(self) -> Path:
        """Where the first start leaves the operator's token."""
        return self.data / "operator.token"

    @property
    def url(self) -> str:
        """Address of the page and the API."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls.on else 'http'}://{host}:{self.port}"

    @property
    def ca_dir(self) -> Path:
        """Folder of the key that certifies devices."""
        return Path(self.enrolment.ca_dir) if self.enrolment.ca_dir else self.data / "ca"


def load(path: Path | None) -> ServerConfig:
    """Read a settings file, or take the defaults.

    Raises:
        InvalidConfiguration: no such file, not TOML, an unknown key or a value out of range.
    """
    if path is None:
        return ServerConfig()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidConfiguration(
            f"no settings file {path}: name an existing one with --config, or leave it out"
        ) from None
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error
    try:
        return msgspec.convert(data, ServerConfig)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"{path}: {error}") from error
