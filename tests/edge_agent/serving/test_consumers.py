import os
import socket

import pytest

from edge_agent.serving import consumers


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
    assert consumers.named(7, arguments) == name


def test_a_name_is_bounded() -> None:
    assert len(consumers.named(7, ["x" * 5000])) == consumers.MAX_LENGTH


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert consumers.peer_of(one).startswith(f"uid:{os.getuid()}/")
