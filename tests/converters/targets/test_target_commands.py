"""What is said of targets on this machine, and installing what lacks."""

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from converters import target_commands
from converters.targets import open_target, places
from converters.targets.profile import load, names
from edge_core.errors import InvalidConfiguration
from tests.simulators.processes import command

PROFILE = """
target = "{name}"
description = "{name}"
adapter = "{adapter}"
runtime = "onnxruntime"
format = "onnx"
scheme = "int8 static"
file = "model.onnx"
machine = "x86_64"
"""

VENDORS = {"npu-qnn-v73", "npu-rk3588", "gpu-webgpu-ort"}


def test_every_profile_is_listed_and_opens() -> None:
    found = {one.target: one for one in target_commands.describe()}
    assert list(found) == names()
    assert {"cpu-x86_64-ort", "cpu-aarch64-ort", "mcu-tflm", "npu-ethos-u55-128"} <= set(found)
    for name, one in found.items():
        assert open_target(name).profile.target == name
        # Nothing is unavailable without a word about it.
        assert one.tool.compiles or one.tool.missing


def test_a_vendor_s_target_is_unavailable_until_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))
    found = {one.target: one for one in target_commands.describe()}
    for name in VENDORS:
        assert found[name].here == "unavailable"
        assert found[name].tool.missing == f"not installed: serinus-convert install-target {name}"
    file = io.StringIO()
    target_commands.show(Console(file=file, width=80), list(found.values()))
    assert "npu-rk3588: not installed" in file.getvalue()


def test_a_target_whose_adapter_or_profile_is_broken_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(PROFILE.format(name="new", adapter="no_such_adapter"))
    (tmp_path / "torn.toml").write_text("target = ")
    (tmp_path / "whole.toml").write_text(PROFILE.format(name="whole", adapter="ort"))

    new, torn, whole = target_commands.describe(tmp_path)

    assert (new.here, torn.here) == ("unavailable", "unavailable")
    assert "no_such_adapter" in new.tool.missing
    assert "torn.toml" in torn.tool.missing
    assert whole.tool.compiles


def test_the_command_tells_people_and_programs() -> None:
    done = subprocess.run(
        [*command("serinus-convert"), "targets", "--json"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert [entry["target"] for entry in json.loads(done.stdout)] == names()


def test_a_target_without_an_installation_says_so() -> None:
    with pytest.raises(InvalidConfiguration, match="mcu-tflm has no installation"):
        target_commands.install("mcu-tflm", print)


def test_an_interrupted_installation_starts_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))

    def halfway() -> None:
        with places.installing("half", "all of it") as place:
            assert place is not None
            (place / "left over").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        halfway()
    assert not places.installed("half", "all of it")
    with places.installing("half", "all of it") as place:
        assert place is not None
        assert list(place.iterdir()) == []
    assert places.installed("half", "all of it")


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_an_installed_vendor_s_tool_compiles_and_answers(name: str) -> None:
    """Runs where the tool is installed; `serinus-convert install-target` installs it."""
    from converters import export, quantising
    from converters.quantising import Wanted
    from converters.quiet import silenced
    from tests.converters.corpus import CORPUS

    target = open_target(name)
    if missing := target.tool().missing:
        pytest.skip(missing)
    example = CORPUS["windows"]()
    feeds = {key: array[:8] for key, array in example.feeds.items()}
    wanted = Wanted(scheme=target.profile.scheme, method="min/max")
    rows = {key: array.repeat(8, axis=0)[:64] for key, array in example.feeds.items()}
    with silenced():
        model = quantising.quantise(export.to_onnx(example.model), rows, wanted)
    compiled = target.compile(model)
    assert compiled.data
    ran = target.run(compiled, feeds, measure=False)
    if ran is None:
        pytest.skip(f"{name}: no device here that can run it")
    assert not ran.on_hardware
    assert not target.placement(compiled).misplaced


def test_a_profile_may_ask_for_providers(tmp_path: Path) -> None:
    assert load("gpu-webgpu-ort").providers == ["WebGpuExecutionProvider"]
    assert load("cpu-x86_64-ort").providers == []
    text = PROFILE.format(name="new", adapter="ort")
    (tmp_path / "new.toml").write_text(f'providers = ["/lib/evil.so"]\n{text}')
    with pytest.raises(InvalidConfiguration, match="providers"):
        load("new", tmp_path)
