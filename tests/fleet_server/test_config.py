import subprocess
import sys
from pathlib import Path

import pytest

from edge_core.errors import InvalidConfiguration
from fleet_server import config


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
