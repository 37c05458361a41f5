import subprocess
import sys
from pathlib import Path

import pytest

from edge_core.errors import InvalidConfiguration
from fleet_server import config, transport
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.services.suite import Services


def test_without_a_file_everything_has_a_default() -> None:
    found = config.load(None)
    assert found.url == "http://127.0.0.1:8321"
    assert found.mqtt.broker == "auto"
    assert found.repository_dir == Path("serinus-data/repository")


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'data_dir = "d"\nport = 9000\n[mqtt]\nport = 1999\n[windows]\ndecide_every_seconds = 1\n'
    )
    found = config.load(file)
    assert (found.port, found.mqtt.port) == (9000, 1999)
    assert found.windows.decide_every_seconds == 1
    assert found.online_keys_dir == Path("d/online")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("prot = 1", "prot"),
        ("[mqtt]\nhots = 'x'", "hots"),
        ("port = 70000", "port"),
        ("port = 'x'", "port"),
        ("[mqtt]\nhost = '0.0.0.0'", "external"),
        ("host = '0.0.0.0'", "tls.mode"),
        ("[mqtt]\ntls = true", "tls.mode"),
        ("[mqtt]\ntls = true\nbroker = 'embedded'", "mosquitto"),
        ("[mqtt]\ntls = true\nbroker = 'external'", "mqtt.ca_file"),
        ("[mqtt]\nca_file = 'x'", "external"),
        ("[tls]\nmode = 'files'", "tls.certificate"),
        ("[enrolment]\ncertificate_days = 0", "certificate_days"),
        ("[mqtt]\nbroker = 'emqx'", "emqx"),
        ("port = ", "TOML"),
        ("[retention]\nwindow_days = 0.5", "window_days"),
        ("[process]\nroles = []", "at least one role"),
        ("[process]\nroles = ['api', 'api']", "none twice"),
        ("[process]\nroles = ['decide']", "add 'ingest'"),
        ("[process]\nroles = ['api']", "database.url"),
        ("[mqtt]\nshared = true", "database.url"),
        (
            "[database]\nurl = 'postgresql+pg8000://x/y'\n[process]\nroles = ['ingest']",
            "mqtt.broker",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(InvalidConfiguration, match=names) as refused:
        config.load(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named_on_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet_server", "run", "--config", str(tmp_path / "no.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no.toml" in done.stderr


def test_beyond_loopback_plain_http_is_for_proxies_only() -> None:
    for mode, scheme in (("proxy", "http"), ("fleet", "https")):
        tls = config.TlsConfig(mode=mode)  # type: ignore[arg-type]
        found = config.ServerConfig(host="0.0.0.0", tls=tls)
        assert found.url == f"{scheme}://0.0.0.0:8321"


def test_a_certificate_that_is_missing_or_over_is_one_clear_line(tmp_path: Path) -> None:
    tls = config.TlsConfig(mode="fleet")
    found = config.ServerConfig(data_dir=str(tmp_path), tls=tls)
    services = Services.open(found)
    try:
        with pytest.raises(InvalidConfiguration, match="serinus-server certificate NAME"):
            transport.server_files(found, services)
        DeviceCa(found.ca_dir).certify_server(["127.0.0.1"], now_ms=1_700_000_000_000)
        with pytest.raises(InvalidConfiguration, match="expired"):
            transport.server_files(found, services)
        (found.ca_dir / "server.pem").write_text("no certificate")
        with pytest.raises(InvalidConfiguration, match="no certificate"):
            transport.server_files(found, services)
    finally:
        services.database.close()
