import base64
import concurrent.futures
import hashlib
import zipfile
from pathlib import Path

import pytest

from converters.refusal import StageFailed
from converters.targets import environments, places
from converters.targets.environments import Requirements
from edge_core.errors import Unavailable

FILES = {
    "tiny.py": "ANSWER = 42\n",
    "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    "tiny-1.0.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, so that nothing is downloaded."""
    wheel = tmp_path_factory.mktemp("wheel") / "tiny-1.0-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            record.append(f"{name},sha256={digest.decode()},{len(text)}\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "".join(record))
    return wheel


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path / "targets"))


def wants(wheel: Path) -> Requirements:
    return Requirements("tiny", (("--no-index", "--no-deps", str(wheel)),))


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def test_a_worker_sees_the_environments_packages_and_none_of_ours(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    environments.install(wants(tiny), lambda line: None)
    ours = script(
        tmp_path,
        "import importlib.util, os, sys, tiny\n"
        "assert importlib.util.find_spec('converters') is None\n"
        "print(tiny.ANSWER, os.environ['SET'], *sys.argv[1:])\n",
    )

    said = environments.run_worker(wants(tiny), ours, ["a", "b"], {"SET": "here"})

    assert said.output == "42 here a b\n"


def test_of_two_installations_at_once_one_installs(tiny: Path) -> None:
    told: list[list[str]] = [[], []]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = [pool.submit(environments.install, wants(tiny), one.append) for one in told]
        for future in done:
            future.result()

    assert sorted(any("pip install" in line for line in one) for one in told) == [False, True]
    assert environments.installed(wants(tiny))


def test_an_interrupted_installation_starts_afresh(tiny: Path) -> None:
    left = places.folder("tiny") / "lib" / "half-written"
    left.parent.mkdir(parents=True)
    left.touch()
    assert not environments.installed(wants(tiny))

    environments.install(wants(tiny), lambda line: None)

    assert environments.installed(wants(tiny))
    assert not left.exists()


def test_other_requirements_are_not_what_is_installed(tiny: Path) -> None:
    environments.install(wants(tiny), lambda line: None)

    other = wants(tiny)._replace(steps=(("tiny==2.0",),))

    assert not environments.installed(other)


def test_a_package_that_cannot_be_had_is_told_and_nothing_counts_as_installed() -> None:
    wanted = Requirements("none", (("--no-index", "no-such-package-here"),))

    with pytest.raises(Unavailable, match=r"pip failed: ERROR: No matching distribution"):
        environments.install(wanted, lambda line: None)

    assert not environments.installed(wanted)


def test_nothing_runs_in_an_environment_that_is_not_there(tiny: Path) -> None:
    with pytest.raises(Unavailable, match="tiny is not installed"):
        environments.run_worker(wants(tiny), "qnn.py", [])


def test_a_worker_that_fails_is_quoted_by_its_last_line(tmp_path: Path) -> None:
    failing = script(tmp_path, "import sys\nprint('fine')\nsys.exit('no room for it')\n")
    silent = tmp_path / "silent.py"
    silent.write_text("import os\nos._exit(3)\n")

    with pytest.raises(StageFailed, match="no room for it"):
        environments.run_worker(None, failing, [])
    with pytest.raises(StageFailed, match="no word, ended with 3"):
        environments.run_worker(None, str(silent), [])


def test_a_worker_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    endless = script(tmp_path, "import time\nwhile True:\n    time.sleep(1)\n")

    with pytest.raises(StageFailed, match=r"took more than 0\.5 s"):
        environments.run_worker(None, endless, [], seconds=0.5)
