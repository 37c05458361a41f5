import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.command_line import completion, parser
from tests.simulators.processes import command


def completed(words: list[str], tmp_path: Path) -> list[str]:
    """What bash offers after these words, by the script that the command prints."""
    script = subprocess.run(
        [*command("serinus-agent"), "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = " ".join(f"'{word}'" for word in ["serinus-agent", *words])
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _serinus_agent; "
    done = subprocess.run(
        ["bash", "-c", script + asked + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["st"], ["status"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["predict", "bundle", "--f"], ["--format"]),
        (["predict", "bundle", "--format", ""], ["csv", "json"]),
        (["predict", "bundle", "--input", "win"], ["windows.npy"]),
        (["predict", "win"], ["windows.npy"]),
        (["predict", "b", "--events", "parcels=win"], ["windows.npy"]),
        (["serve", "bundle", "--rest-port", ""], []),
        (["status", "--j"], ["--json"]),
    ],
)
def test_bash_completes(tmp_path: Path, words: list[str], offered: list[str]) -> None:
    (tmp_path / "windows.npy").touch()
    found = [word for word in completed(words, tmp_path) if not word.startswith("-h")]
    if words[0] == "completion":  # files follow what is named
        found = [word for word in found if word not in ("windows.npy", "--help")]
    assert sorted(found) == offered


@pytest.mark.parametrize("shell", parser.SHELLS)
def test_every_command_and_option_stands_in_every_script(shell: str) -> None:
    text = completion.script(shell, parser.build())
    for found in completion.commands(parser.build()):
        assert found.name in text
        for option in found.options:
            for name in option.names:
                written = name.lstrip("-") if shell == "fish" else name
                assert written in text, (found.name, name)


@pytest.mark.parametrize("shell", [shell for shell in parser.SHELLS if shutil.which(shell)])
def test_shells_that_are_here_accept_the_script(shell: str) -> None:
    text = completion.script(shell, parser.build())
    done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_texts_with_signs_of_the_shell_are_quoted(tmp_path: Path) -> None:
    trap = argparse.ArgumentParser(prog="trap")
    commands = trap.add_subparsers(dest="command")
    one = commands.add_parser("one", help="it's $(touch bad) [a]: `touch bad`")
    one.add_argument("--kind", choices=("a$(touch bad)", "b"), help="50 %% of 'it' [b]: c")
    for shell in parser.SHELLS:
        text = completion.script(shell, trap)
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=text, text=True, check=True)
    subprocess.run(["bash", "-c", completion.script("bash", trap)], check=True, cwd=tmp_path)
    assert not (tmp_path / "bad").exists()
