"""What an update leaves behind when the process ends, and what the next start makes of it."""

import asyncio
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.update.journal import Entry, Journal
from edge_core.features.sensors import Window
from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import DEFINITION, TARGET
from tests.simulators.updating import Device, device, run

LONG = 3600.0
TICKS = 50
"""Of the event loop, while more than one attempt of the updater fails."""


def golden(**changes: np.ndarray) -> bytes:
    """Golden vectors that no device meets, or with the wrong shapes."""
    arrays = {
        "samples": np.zeros((2, 8, 2), np.float32),
        "features": np.ones((2, 4), np.float32),
        f"expected.{TARGET}": np.ones((2, 3), np.float32),
    }
    data = io.BytesIO()
    np.savez(data, **(arrays | changes))  # type: ignore[arg-type]
    return data.getvalue()


def install(state: Path, repository: RepositorySimulator, *refs: ReleaseRef) -> Entry:
    """Bring a new device through these releases, one after the other."""

    async def story() -> None:
        async with device(state, repository) as one:
            for ref in refs:
                one.want(ref)
                await one.settled("committed")

    run(story)
    return Journal(state).read()


def wish(active: ReleaseRef, shadow: ReleaseRef | None = None) -> DesiredState:
    return DesiredState(revision=100, issued_ms=0, active=active, shadow=shadow)


async def serves_until(one: Device, mend: Callable[[], object]) -> None:
    """Let the updater try in vain while the event loop goes on, then mend what is in its way.

    Where the loop does not go on, another thread mends it much later, and the test fails.
    """
    stood_still = threading.Event()

    def mend_late() -> None:
        stood_still.set()
        mend()

    late = threading.Timer(20.0, mend_late)
    late.start()
    for _ in range(TICKS):
        await one.tick()
    late.cancel()
    assert not stood_still.is_set()
    mend()


def model(state: Path, ref: ReleaseRef) -> Path:
    return next((state / "slots" / ref.digest).rglob("model.onnx"))


@pytest.mark.parametrize("why", ["other windows", "wrong answers"])
def test_a_refused_shadow_does_not_come_back(
    tmp_path: Path, repository: RepositorySimulator, why: str
) -> None:
    first = repository.publish("1.0.0")
    if why == "other windows":
        window = Window(samples=8, hop=2, max_gap_ms=100, rate_hz=50.0)
        other = msgspec.structs.replace(DEFINITION, window=window)
        shadow = repository.publish("2.0.0", seed=1, definition=other)
    else:
        shadow = repository.publish("2.0.0", seed=1, golden=golden())

    async def refuse() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            one.want(first, shadow)
            entry = await one.settled("failed")
            assert [refusal.release for refusal in entry.refusals] == [shadow]

    async def restart() -> None:
        async with device(tmp_path / "state", repository) as one:
            await one.settled("failed")
            assert await one.serves() == "1.0.0"
            assert one.engine.shadow is None

    run(refuse)
    run(restart)


def test_a_shadow_that_does_not_fit_is_left_out_even_where_the_journal_has_it(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    window = Window(samples=8, hop=2, max_gap_ms=100, rate_hz=50.0)
    other = msgspec.structs.replace(DEFINITION, window=window)
    first, second = repository.publish("1.0.0"), repository.publish("2.0.0", definition=other)
    state = tmp_path / "state"
    install(state, repository, second, first)
    Journal(state).write(Entry(state="committed", desired=wish(first, second)))

    async def restart() -> None:
        async with device(state, repository) as one:
            entry = await one.settled("committed")
            assert "other windows" in entry.reason
            assert await one.serves() == "1.0.0"
            assert one.engine.shadow is None

    run(restart)


@pytest.mark.parametrize("state", ["verifying", "self_testing", "shadowing", "activating"])
def test_too_many_starts_before_the_trial_end_the_update(
    tmp_path: Path, repository: RepositorySimulator, state: str
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    folder = tmp_path / "state"
    before = install(folder, repository, first)
    Journal(folder).write(Entry(state=state, desired=wish(second), starts=3, proven=before.proven))

    async def restart() -> None:
        async with device(folder, repository) as one:
            entry = await one.settled("failed")
            assert f"more than 3 starts in {state}" in entry.reason
            assert [refusal.release for refusal in entry.refusals] == [second]
            assert await one.serves() == "1.0.0"

    run(restart)


def test_too_many_starts_in_recovery_serve_the_fallback_alone_and_still_take_a_wish(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first)
    Journal(state).write(Entry(state="recovering", desired=wish(second), starts=3))

    async def restart() -> None:
        async with device(state, repository) as one:
            await one.settled("failed")
            assert [answer.served_by for answer in await one.ask()] == ["fallback"] * 4
            one.want(second)
            await one.settled("committed")
            assert await one.serves() == "1.1.0"

    run(restart)


def test_a_shadow_that_ends_the_process_is_given_up_and_one_that_runs_is_not(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, second, first)
    entry = Entry(state="committed", desired=wish(first, second), starts=2, proven=first.digest)
    Journal(state).write(entry)

    async def lives() -> None:
        async with device(state, repository, probation_seconds=2.0) as one:
            await one.settled("committed")
            assert Journal(state).read().starts == 3
            async with asyncio.timeout(30):
                while Journal(state).read().starts:
                    await one.tick()
            assert one.engine.shadow is not None

    async def dies() -> None:
        async with device(state, repository) as one:
            found = await one.settled("failed")
            assert [refusal.release for refusal in found.refusals] == [second]
            assert one.engine.shadow is None
            assert await one.serves() == "1.0.0"

    run(lives)
    Journal(state).write(msgspec.structs.replace(entry, starts=3))
    run(dies)


def test_whatever_a_bundle_breaks_in_the_self_test_is_a_refusal(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first = repository.publish("1.0.0", golden=golden(features=np.ones((2, 4), np.float64)))

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            entry = await one.settled("failed")
            assert [refusal.release for refusal in entry.refusals] == [first]

    run(story)


def test_two_wishes_on_a_full_disk_do_not_block_the_service(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    third = repository.publish("1.2.0", seed=2)
    obstacle = tmp_path / "state" / ".journal.json.tmp"

    async def story() -> None:
        async with device(tmp_path / "state", repository, retry_seconds=0.05) as one:
            one.want(first)
            await one.settled("committed")
            obstacle.mkdir()
            one.want(second)
            await one.tick()
            one.want(third)
            await serves_until(one, obstacle.rmdir)
            await one.settled("committed")
            assert await one.serves() == "1.2.0"

    run(story)


def test_a_disk_that_stays_full_for_a_thousand_attempts_is_outlasted(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first = repository.publish("1.0.0")
    obstacle = tmp_path / "state" / ".journal.json.tmp"

    async def story() -> None:
        # So small a pause that doubling it a thousand times takes no time.
        async with device(tmp_path / "state", repository, retry_seconds=1e-306) as one:
            obstacle.mkdir()
            one.want(first)
            for _ in range(200):
                await one.tick()
            obstacle.rmdir()
            await one.settled("committed")

    run(story)


def test_a_pointer_that_cannot_be_read_now_costs_no_slot(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first, second)
    aside = (state / "active.json").rename(tmp_path / "aside")
    (state / "active.json").mkdir()

    async def story() -> None:
        async with device(state, repository) as one:
            async with asyncio.timeout(5):
                while "state folder" not in one.updater.reason:
                    await one.tick()
            assert one.slots.digests() == sorted([first.digest, second.digest])
            (state / "active.json").rmdir()
            aside.rename(state / "active.json")
            await one.settled("committed")
            assert await one.serves() == "1.1.0"

    run(story)


def test_a_wish_while_the_pointer_cannot_be_read_does_not_block_the_service(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first)
    aside = (state / "active.json").rename(tmp_path / "aside")
    (state / "active.json").mkdir()

    def mend() -> None:
        (state / "active.json").rmdir()
        aside.rename(state / "active.json")

    async def story() -> None:
        async with device(state, repository, retry_seconds=0.05) as one:
            await one.tick()
            one.want(second)
            await serves_until(one, mend)
            await one.settled("committed")
            assert await one.serves() == "1.1.0"

    run(story)


def test_a_newer_wish_that_fails_leaves_the_proven_release_and_not_the_one_on_trial(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first)
    unlisted = ReleaseRef(model=first.model, version="6.6.6", digest="6" * 64)

    async def story() -> None:
        async with device(state, repository, probation_seconds=LONG) as one:
            one.want(second)
            await one.on_trial(second)
            one.want(unlisted)
            await one.settled("failed")
            assert await one.serves() == "1.0.0"

    run(story)


@pytest.mark.parametrize("pointer", [b"", b"{", b'{"v":99,"active":null}'])
def test_a_corrupt_pointer_is_replaced_by_what_the_journal_knows(
    tmp_path: Path, repository: RepositorySimulator, pointer: bytes
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first, second)
    (state / "active.json").write_bytes(pointer)

    async def story() -> None:
        async with device(state, repository) as one:
            await one.settled("committed")
            assert await one.serves() == "1.1.0"
            one.want(second)
            await one.settled("committed")
            assert one.slots.digests() == sorted([first.digest, second.digest])

    run(story)


def test_a_cut_just_after_the_switch_does_not_spare_the_trial(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first)

    async def switch() -> None:
        async with device(state, repository, probation_seconds=LONG) as one:
            one.want(second)
            await one.on_trial(second)

    async def restart() -> None:
        async with device(state, repository, probation_seconds=LONG) as one:
            await one.on_trial(second)
            assert one.updater.entry.proven == first.digest

    run(switch)
    journal = Journal(state)
    journal.write(msgspec.structs.replace(journal.read(), state="activating"))
    run(restart)


def test_a_newer_wish_for_the_same_release_does_not_end_its_trial(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first)

    async def story() -> None:
        async with device(state, repository, probation_seconds=LONG) as one:
            one.want(second)
            await one.on_trial(second)
            one.want(second)
            for _ in range(50):
                await one.tick()
            await one.on_trial(second)
            assert one.updater.entry.proven == first.digest

    run(story)


def test_a_release_on_trial_is_never_the_one_to_go_back_to(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    third = repository.publish("1.2.0", seed=2)
    state = tmp_path / "state"
    install(state, repository, first)

    async def story() -> None:
        async with device(state, repository, probation_seconds=LONG) as one:
            for ref in (second, third):
                one.want(ref)
                await one.on_trial(ref)
            pointer = one.slots.pointer()
            assert pointer is not None
            assert (pointer.active, pointer.previous) == (third.digest, first.digest)

    run(story)


@pytest.mark.parametrize("journal_state", ["probation", "committed"])
def test_a_wished_release_that_cannot_be_loaded_again_is_not_reported_as_committed(
    tmp_path: Path, repository: RepositorySimulator, journal_state: str
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    entry = install(state, repository, first, second)
    Journal(state).write(msgspec.structs.replace(entry, state=journal_state, proven=None))
    model(state, second).write_bytes(b"")

    async def story() -> None:
        async with device(state, repository) as one:
            found = await one.settled("failed", "committed")
            assert found.state == "failed"
            assert "damaged" in found.reason
            assert found.refusals == []  # the disk did it, not the release
            assert await one.serves() == "1.0.0"
            one.want(second)
            await one.settled("committed")
            assert await one.serves() == "1.1.0"

    run(story)


def test_a_damaged_slot_is_fetched_again(tmp_path: Path, repository: RepositorySimulator) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"
    install(state, repository, first, second)
    model(state, first).write_bytes(b"")

    async def story() -> None:
        async with device(state, repository) as one:
            one.want(first)
            entry = await one.settled("committed", "failed")
            assert (entry.state, entry.refusals) == ("committed", [])
            assert await one.serves() == "1.0.0"

    run(story)


@pytest.mark.parametrize("file", ["manifest.json", "reference.bin", "fallback.json"])
def test_bytes_that_changed_and_would_still_load_are_not_served(
    tmp_path: Path, repository: RepositorySimulator, file: str
) -> None:
    old, new = repository.publish("8.0.0"), repository.publish("8.1.0", seed=1)

    async def story() -> None:
        async with device(tmp_path, repository) as first:
            for ref in (old, new):
                first.want(ref)
                await first.settled("committed")
        path = tmp_path / "slots" / new.digest / file
        path.write_bytes(path.read_bytes() + b"\n")  # as harmless as a change can be
        async with device(tmp_path, repository) as again:
            entry = await again.settled("committed", "failed")
            assert await again.serves() == "8.0.0"
            assert "damaged on this device" in again.updater.reason
            assert entry.refusals == []

    run(story)


def test_every_file_is_on_the_disk_before_it_becomes_a_slot(
    tmp_path: Path, repository: RepositorySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be made here, so the calls are watched; they still happen."""
    first = repository.publish("1.0.0")
    synced: list[str] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    install(tmp_path / "state", repository, first)
    slot = tmp_path / "state" / "slots" / first.digest
    assert {path.name for path in slot.rglob("*")} <= set(synced)
    assert not any((tmp_path / "state" / "tuf" / "targets").iterdir())
