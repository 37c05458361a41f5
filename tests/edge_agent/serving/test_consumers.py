import os
import socket

import pytest

from edge_agent.serving import consumers
from edge_core.errors import InvalidInput


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/usr/bin/camera", "--fast"], "uid:7/camera"),
        (["/usr/bin/python3.11", "-u", "/srv/app.py", "x"], "uid:7/app.py"),
        (["python", "-m", "belt.sorter"], "uid:7/belt.sorter"),
        (["python3"], "uid:7/python3"),
        (["/opt/strange name\n"], "uid:7/strange_name_"),
        ([], "uid:7"),
        ([""], "uid:7"),
    ],
)
def test_a_consumer_is_named_by_user_and_program(arguments: list[str], name: str) -> None:
    assert consumers.of_process(7, arguments) == name


def test_a_long_command_line_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "MAX_ARGUMENT_BYTES", 3)  # as if this one were long
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert len(consumers.peer_of(one)) <= len(f"uid:{os.getuid()}/") + 3


def test_a_name_is_bounded() -> None:
    assert len(consumers.of_process(7, ["x" * 5000])) == consumers.MAX_LENGTH


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert consumers.peer_of(one).startswith(f"uid:{os.getuid()}/")


@pytest.mark.parametrize("name", ["a", "line-7/press", "team:x@site_1.2", "x" * 64])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert consumers.named(name, "http") == name
    assert consumers.named(name.encode(), "http") == name


def test_who_gives_no_name_is_known_by_the_interface() -> None:
    assert consumers.named(None, "http") == "http"


@pytest.mark.parametrize(
    "name", ["", "a b", "x" * 65, "-a", "a\n", "a\x00", "ü", b"\xff", 'a"b', "{a}", "a,b"]
)
def test_other_names_are_refused(name: str | bytes) -> None:
    with pytest.raises(InvalidInput, match="1 to 64 letters"):
        consumers.named(name, "http")
