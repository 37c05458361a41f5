import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from converters import signing
from edge_agent import config
from edge_agent.command_line import config_view, default_settings, settings
from fleet_server.authority.device_ca import DeviceCa
from tests.simulators.processes import command

SETTINGS = """
device = "watch-1"
target = "cpu-x86_64-ort"
state_dir = "state"
slices.side = "left"
[serving]
socket = "agent.sock"
max_queue_rows = 128
[repository]
url = "https://someone:hunter2@fleet.example/repository"
trusted_root = "root.json"
[mqtt]
host = "fleet.example"
username = "watch-1"
password = "hunter2"
[sideload]
keys = ["keys/statement.pub.pem"]
[update]
max_error_share = 0.05
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    signing.generate_key(tmp_path / "keys")
    (tmp_path / "root.json").write_text("{}")
    path = tmp_path / "agent.toml"
    path.write_text(SETTINGS)
    return path


def check(path: Path) -> subprocess.CompletedProcess[str]:
    arguments = [*command("serinus-agent"), "check-config", "--config", str(path)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_a_valid_file_is_explained_and_nothing_is_changed(file: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = check(file)
    assert (done.returncode, done.stderr) == (0, "")
    page = done.stdout
    assert page.startswith(f"{file} is valid\n")
    assert "watch-1, runs variants for cpu-x86_64-ort" in page
    assert "no REST (rest_port = 0)" in page
    assert "fleet.example:1883 as watch-1 for orders" in page
    assert re.search(r"\*max_queue_rows +128\n", page)
    assert re.search(r"\*max_error_share +5 %\n", page)
    assert re.search(r" outbox_bytes +64 MiB\n", page)
    assert re.search(r" max_age_seconds +7 days\n", page)
    assert sorted(tmp_path.rglob("*")) == before


def test_no_secret_is_shown(file: Path) -> None:
    page = check(file).stdout
    assert "hunter2" not in page
    assert re.search(r"password +set, hidden", page)
    assert "https://…@fleet.example/repository" in page


def test_every_setting_is_shown(file: Path) -> None:
    authority = DeviceCa(file.parent / "ca").trusted(1_700_000_000_000)
    (file.parent / "fleet-ca.pem").write_text(authority)
    with file.open("a") as stream:
        stream.write('[identity]\nserver = "https://fleet.example"\nca_file = "fleet-ca.pem"\n')
    page = check(file).stdout
    assert "fleet.example:1883 by its certificate for orders" in page
    for setting in settings.all_settings():
        assert re.search(rf"^ [ *]{setting.key} ", page, re.MULTILINE), setting.path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"root.json"', '"nothing.json"', "[repository] trusted_root: cannot read"),
        ('"keys/statement.pub.pem"', '"nothing.pem"', "[sideload] keys: cannot read"),
        ('"keys/statement.pub.pem"', '"root.json"', "[sideload] keys: "),
        ('"state"', '"root.json/state"', "state_dir: "),
        ('"agent.sock"', '"root.json/agent.sock"', "[serving] socket: "),
        ('"agent.sock"', f'"{"s" * 120}"', "a Unix socket's path has at most 107"),
        ("https://someone", "ftp://someone", "[repository] url: "),
        ('"watch-1"\npass', '"x"\nca_file = "root.json"\npass', "[mqtt] ca_file: cannot use"),
    ],
)
def test_what_cannot_work_here_is_named_with_file_key_and_fix(
    file: Path, old: str, new: str, said: str
) -> None:
    assert old in SETTINGS
    file.write_text(SETTINGS.replace(old, new))
    done = check(file)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"serinus-agent: {file}: ")
    assert said in line
    assert "hunter2" not in line


def test_all_problems_are_named_at_once(file: Path) -> None:
    file.write_text(SETTINGS.replace("root.json", "a.json").replace("keys/", "nowhere/"))
    assert len(check(file).stderr.splitlines()) == 2


def uncommented(text: str) -> str:
    """The printed file with every setting taken in, as its first lines say how."""
    kept = [line for line in text.splitlines() if not line.startswith("##")]
    return "\n".join(line.removeprefix("# ") for line in kept if "# not set" not in line)


def test_the_printed_file_loads_as_it_is_once_it_is_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(default_settings.rendered())
    found = config.load(path)
    assert found.repository is None
    assert found.telemetry == config.Telemetry()


def test_the_printed_file_holds_every_default(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(uncommented(default_settings.rendered()))
    found = config.load(path)
    assert found.repository is not None
    assert found.mqtt == config.Mqtt(host="fleet.example")
    for setting in settings.all_settings():
        if not setting.required:
            table = getattr(found, setting.section) if setting.section else found
            assert getattr(table, setting.key) == setting.default, setting.path


def test_the_printed_file_explains_settings(tmp_path: Path) -> None:
    text = default_settings.rendered()
    assert "## Port of the Open Inference Protocol on 127.0.0.1; 0 leaves it off.\n" in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("value", ["plain", 'with "quotes"', "back\\slash", "ü\n", True, 1, 0.5])
def test_toml_reads_back_what_was_written(tmp_path: Path, value: object) -> None:
    import tomllib

    assert tomllib.loads(f"value = {default_settings.toml(value)}")["value"] == value
    nested = {"a": [value, value]}
    assert tomllib.loads(f"value = {default_settings.toml(nested)}")["value"] == nested


def test_a_value_of_any_new_secret_is_hidden() -> None:
    for key in ("password", "api_token", "client_secret"):
        setting = settings.Setting("mqtt", key, str, msgspec.NODEFAULT, "")
        assert config_view.shown(setting, "hunter2") == "set, hidden"
