"""A topic names one device and one kind, whoever writes it."""

from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_core.errors import InvalidMessage
from edge_core.messages import topics
from edge_core.messages.topics import DownKind, UpKind

DEVICES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
HOSTILE = [
    "",
    "+",
    "#",
    "d/#",
    "d/+",
    "a+",
    "a#",
    "../d",
    "a/b",
    "/",
    "d/",
    "/d",
    ".",
    "-d",
    "$SYS",
    "d\n",
    "d\0",
    "d e",
    "dé",
    "d٣",
    "d" * 65,
]


def test_topics_are_what_other_programs_rely_on() -> None:
    assert topics.up("watch-01", "stats") == "serinus/v1/up/watch-01/stats"
    assert topics.down("watch-01", "desired") == "serinus/v1/down/watch-01/desired"
    assert topics.every_up() == "serinus/v1/up/+/+"


@given(device=DEVICES, kind=st.sampled_from(get_args(UpKind)))
def test_an_upward_topic_is_parsed_as_it_was_built(device: str, kind: UpKind) -> None:
    topic = topics.up(device, kind)
    assert topics.parse_up(topic) == (device, kind)
    assert topic.count("/") == topics.every_up().count("/")
    assert len(topic.encode()) < 128


@given(device=DEVICES, kind=st.sampled_from(get_args(DownKind)))
def test_a_downward_topic_is_not_taken_for_an_upward_one(device: str, kind: DownKind) -> None:
    with pytest.raises(InvalidMessage):
        topics.parse_up(topics.down(device, kind))


@pytest.mark.parametrize("device", HOSTILE)
def test_a_name_that_is_not_one_plain_level_builds_no_topic(device: str) -> None:
    with pytest.raises(ValueError, match="device name"):
        topics.up(device, "state")
    with pytest.raises(ValueError, match="device name"):
        topics.down(device, "desired")


@pytest.mark.parametrize("device", HOSTILE)
def test_a_name_that_is_not_one_plain_level_is_not_parsed(device: str) -> None:
    with pytest.raises(InvalidMessage, match="is not one that a device publishes on"):
        topics.parse_up(f"serinus/v1/up/{device}/state")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "serinus/v1/up/",
        "serinus/v1/up/d",
        "serinus/v1/up/d/",
        "serinus/v1/up/d/desired",
        "serinus/v1/up/d/states",
        "serinus/v1/up/d/STATE",
        "serinus/v1/up/d/+",
        "serinus/v1/up/d/state/",
        "serinus/v1/up/d/state/more",
        "serinus/v1/up/d/state\n",
        "serinus/v2/up/d/state",
        "Serinus/v1/up/d/state",
        "/serinus/v1/up/d/state",
        "other/serinus/v1/up/d/state",
        "serinus/v1/up/serinus/v1/up/d/state",
        topics.every_up(),
    ],
)
def test_any_other_topic_is_refused(topic: str) -> None:
    with pytest.raises(InvalidMessage):
        topics.parse_up(topic)


def test_a_refusal_is_one_short_line() -> None:
    with pytest.raises(InvalidMessage) as refused:
        topics.parse_up("serinus/v1/up/d/\x1b[2J\n" + "x" * 60_000)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


LEVELS = st.sampled_from(["serinus", "v1", "up", "down", "d", "state", "stats", "online", "+", ""])


@given(st.text(max_size=40) | st.lists(LEVELS, max_size=7).map("/".join))
@example("serinus/v1/up/d/state")
def test_random_topics_are_refused_or_are_built_the_same_again(topic: str) -> None:
    try:
        parsed = topics.parse_up(topic)
    except InvalidMessage:
        return
    assert topics.up(parsed.device, parsed.kind) == topic


@given(device=DEVICES, kind=st.sampled_from(get_args(DownKind)))
def test_a_downward_topic_is_parsed_for_its_own_device_only(device: str, kind: DownKind) -> None:
    topic = topics.down(device, kind)
    assert topics.parse_down(topic, device) == kind
    for other in (topics.up(device, "state"), topic + "s", topic.replace("down", "dawn")):
        with pytest.raises(InvalidMessage, match="is addressed"):
            topics.parse_down(other, device)
    with pytest.raises(InvalidMessage, match="is addressed"):
        topics.parse_down(topic, "x" if device != "x" else "y")
