"""What the agent takes from its broker, and what it only counts."""

import asyncio
from pathlib import Path

import pytest

from edge_agent.agent import Agent
from edge_agent.inbox import Inbox
from edge_agent.mqtt import Received
from edge_core.messages import codec, topics
from edge_core.messages.deployment import DesiredState
from tests.edge_agent.test_agent import settings

WISH = DesiredState(revision=3, issued_ms=0, active=None)
TOPIC = topics.down("d", "desired")


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (TOPIC, b""),
        (TOPIC, b"\xc1"),
        (TOPIC, codec.encode(WISH)[:-1]),
        (TOPIC, bytes(codec.MAX_MESSAGE_BYTES + 1)),
        (topics.down("other", "desired"), codec.encode(WISH)),
        ("(not UTF-8)", codec.encode(WISH)),
    ],
)
def test_what_is_no_wish_is_counted_once_and_the_next_one_followed(
    topic: str, payload: bytes
) -> None:
    wanted: list[DesiredState] = []
    inbox = Inbox("d", want=wanted.append, command=lambda _: None)
    inbox.take(topic, payload)
    assert (inbox.refused, wanted) == (1, [])
    inbox.take(TOPIC, codec.encode(WISH))
    assert (inbox.refused, wanted) == (1, [WISH])


def test_status_tells_how_many_messages_were_refused(tmp_path: Path) -> None:
    config = settings(tmp_path)

    async def story() -> None:
        agent = Agent(config)
        for _ in range(3):
            agent._sending.handle(Received(TOPIC, b"junk"))
        agent._sending.handle(Received(TOPIC, codec.encode(WISH)))
        assert agent._account.status()["refused_messages"] == 3
        assert agent._updater.busy
        await agent._engine.close()
        agent._outbox.close()

    asyncio.run(story())
