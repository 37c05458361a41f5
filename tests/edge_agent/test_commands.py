"""What a device makes of commands: each once, in the order of issue, over restarts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.commands import FILE, MAX_FILE_BYTES, MAX_MODELS, MAX_OUTCOMES, REPORTED, Commands
from edge_agent.serving.policy import Order
from edge_core import durable
from edge_core.errors import InvalidMessage
from edge_core.messages import codec
from edge_core.messages.command import Command, FallbackOff, FallbackOn

NOW = 1_800_000_000_000


class Desk:
    """Commands of one state folder, and the orders that they led to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.orders: list[Order] = []
        self.restart()

    def restart(self) -> None:
        self.commands = Commands(
            self.folder, now_ms=lambda: self.now, follow=lambda found: self._follow(found)
        )

    def _follow(self, found: list[Order]) -> None:
        self.orders = found

    def on(self, number: str, *, at: int = NOW, valid: int = 60_000, **fields: object) -> str:
        action = FallbackOn(**({"model": "m"} | fields))  # type: ignore[arg-type]  # of a test
        return self.give(Command(id=number, issued_ms=at, expires_ms=at + valid, action=action))

    def off(self, number: str, *, at: int = NOW, model: str = "m") -> str:
        action = FallbackOff(model=model)
        return self.give(Command(id=number, issued_ms=at, expires_ms=at + 60_000, action=action))

    def give(self, command: Command) -> str:
        return self.commands.take(codec.encode(command)).outcome


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_an_order_is_carried_out_and_kept(desk: Desk) -> None:
    assert desk.on("c1", reason="storm", until_ms=NOW + 5000) == "done"
    wanted = [Order(model="m", reason="storm", since_ms=NOW, until_ms=NOW + 5000)]
    assert desk.orders == wanted
    desk.orders = []
    desk.restart()
    assert desk.orders == wanted
    assert [o.id for o in desk.commands.outcomes] == ["c1"]


def test_the_same_command_is_carried_out_once(desk: Desk) -> None:
    desk.on("c1")
    desk.off("c2", at=NOW + 1)
    desk.restart()
    assert desk.on("c1") == "done", "it is said again what became of it"
    assert desk.orders == []
    assert [o.id for o in desk.commands.outcomes] == ["c2", "c1"]


def test_what_is_asked_for_again_is_reported_again(desk: Desk) -> None:
    """The server asks where it did not hear: with many commands at once, the first ones."""
    numbers = [f"c{number}" for number in range(2 * REPORTED)]
    for place, number in enumerate(numbers):
        desk.on(number, at=NOW + place)
    assert "c0" not in [o.id for o in desk.commands.outcomes]
    assert desk.on("c0") == "done"
    assert [o.id for o in desk.commands.outcomes] == [*numbers[1 - REPORTED :], "c0"]
    for number in numbers:
        desk.on(number)
    assert [o.id for o in desk.commands.outcomes] == numbers[-REPORTED:]


def test_of_two_orders_the_one_issued_later_counts(desk: Desk) -> None:
    assert desk.off("c2", at=NOW + 1) == "done"
    assert desk.on("c1") == "superseded"
    assert desk.orders == []
    desk.restart()
    assert desk.on("c0", at=NOW - 5) == "superseded"


def test_an_order_for_one_model_leaves_the_others(desk: Desk) -> None:
    desk.on("c1", model="a")
    desk.on("c2", model="b")
    desk.off("c3", at=NOW + 1, model="a")
    assert [order.model for order in desk.orders] == ["b"]


@pytest.mark.parametrize("late", [60_000, 10**9])
def test_an_expired_order_is_refused(desk: Desk, late: int) -> None:
    desk.now = NOW + late
    assert desk.on("c1") == "expired"
    assert desk.orders == []


def test_an_order_whose_end_has_passed_is_refused(desk: Desk) -> None:
    assert desk.on("c1", until_ms=NOW) == "expired"
    assert desk.orders == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        codec.encode(
            Command(id="c", issued_ms=NOW, expires_ms=NOW + 1, action=FallbackOff(model="m"))
        ).replace(b"fallback_off", b"fallback_out"),
    ],
)
def test_what_is_no_known_command_is_refused(desk: Desk, payload: bytes) -> None:
    with pytest.raises(InvalidMessage):
        desk.commands.take(payload)
    assert desk.commands.outcomes == []


def test_too_many_models_are_refused_and_ended_orders_make_room(desk: Desk) -> None:
    for number in range(MAX_MODELS):
        assert desk.on(f"c{number}", model=f"m{number}") == "done"
    assert desk.on("more", model="another") == "refused"
    assert len(desk.orders) == MAX_MODELS
    desk.off("end", at=NOW + 1, model="m0")
    assert desk.on("again", at=NOW + 2, model="another") == "done"


def test_outcomes_are_bounded(desk: Desk) -> None:
    for number in range(2 * MAX_OUTCOMES):
        desk.on(f"c{number}", at=NOW + number)
    desk.restart()
    assert len(desk.commands.outcomes) <= MAX_OUTCOMES
    assert desk.commands.outcomes[-1].id == f"c{2 * MAX_OUTCOMES - 1}"
    assert (desk.folder / FILE).stat().st_size < 64 * 1024


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-2],
        lambda data: data.replace(b'"v":1', b'"v":2'),
        lambda data: data.replace(b"standing", b"sitting!"),
        lambda data: b"\xff" + data,
        lambda data: b"[" * 100_000,
        lambda data: data + b" " * MAX_FILE_BYTES,
    ],
)
def test_a_damaged_file_means_no_order_and_is_counted(
    desk: Desk, damage: Callable[[bytes], bytes]
) -> None:
    desk.on("c1")
    path = desk.folder / FILE
    path.write_bytes(damage(path.read_bytes()))
    desk.restart()
    assert desk.orders == []
    assert desk.commands.unreadable == 1
    assert desk.on("c2") == "done"
    desk.restart()
    assert len(desk.orders) == 1


def test_a_full_disk_does_not_keep_the_order_from_taking_effect(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_bytes", full)
    assert desk.on("c1") == "done"
    assert len(desk.orders) == 1
    assert "No space left" in desk.commands.outcomes[0].detail
