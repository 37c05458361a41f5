"""The update, step by step, against a real repository and the real runtime."""

import asyncio
from pathlib import Path

import pytest

from edge_agent.update.journal import Entry, Journal
from edge_core.release import ReleaseRef
from tests.simulators.repository import RepositorySimulator
from tests.simulators.updating import device, run


def test_a_first_release_is_installed_and_a_second_replaces_it(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            assert await one.serves() == "1.0.0"
            one.want(second)
            await one.settled("committed")
            assert await one.serves() == "1.1.0"
            pointer = one.slots.pointer()
            assert (pointer.active, pointer.previous) == (second.digest, first.digest)

    run(story)


def test_a_shadow_is_loaded_beside_the_active_release(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            one.want(first, second)
            await one.settled("committed")
            assert one.engine.shadow is not None
            assert one.engine.shadow.ref == second
            assert await one.serves() == "1.0.0"

    run(story)


@pytest.mark.parametrize("state", ["probation", "committed"])
def test_a_restart_brings_the_shadow_back(
    tmp_path: Path, repository: RepositorySimulator, state: str
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)

    async def install() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            one.want(second, first)
            await one.settled("committed")

    async def restart() -> None:
        async with device(tmp_path / "state", repository) as one:
            await one.settled("committed")
            assert await one.serves() == "1.1.0"
            assert one.engine.shadow is not None
            assert one.engine.shadow.ref == first

    run(install)
    journal = Journal(tmp_path / "state")
    journal.write(Entry(state=state, desired=journal.read().desired))
    run(restart)


def test_an_altered_file_is_refused_and_the_old_release_serves_on(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    model = repository.target(second, "model.onnx")
    data = bytearray(model.read_bytes())
    data[100] ^= 1
    model.write_bytes(bytes(data))

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            one.want(second)
            entry = await one.settled("failed")
            assert "altered" in entry.reason
            assert [refusal.release for refusal in entry.refusals] == [second]
            assert await one.serves() == "1.0.0"

    run(story)


def test_an_unlisted_release_and_a_wrong_digest_are_refused(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first = repository.publish("1.0.0")
    unlisted = ReleaseRef(model=first.model, version="6.6.6", digest="6" * 64)
    other = ReleaseRef(model=first.model, version="1.0.0", digest="7" * 64)

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            for wrong in (unlisted, other):
                one.want(wrong)
                entry = await one.settled("failed")
                assert "approved" in entry.reason
            one.want(first)
            await one.settled("committed")
            assert await one.serves() == "1.0.0"

    run(story)


def test_an_unreachable_repository_ends_with_a_reason_and_no_refusal(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first = repository.publish("1.0.0")

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            repository.stop()
            one.want(first)
            entry = await one.settled("failed")
            assert "gave up after 2 attempts" in entry.reason
            assert entry.refusals == []

    run(story)


def test_a_disk_that_cannot_be_written_holds_the_update_up_and_not_the_service(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    obstacle = tmp_path / "state" / ".journal.json.tmp"  # where the next journal would be written

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            obstacle.mkdir()
            one.want(second)
            async with asyncio.timeout(10):
                while "cannot be written" not in one.updater.reason:
                    await asyncio.sleep(0.02)
            assert await one.serves() == "1.0.0"
            obstacle.rmdir()
            await one.settled("committed")
            assert await one.serves() == "1.1.0"
            assert one.updater.reason == ""

    run(story)


@pytest.mark.parametrize(
    "journal", [b"", b"{", b'{"v":1,"state":"unheard_of"}', b'{"v":99,"state":"idle"}']
)
def test_an_unreadable_journal_goes_back_to_the_previous_release(
    tmp_path: Path, repository: RepositorySimulator, journal: bytes
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)

    async def install() -> None:
        async with device(tmp_path / "state", repository) as one:
            for ref in (first, second):
                one.want(ref)
                await one.settled("committed")

    async def restart() -> None:
        async with device(tmp_path / "state", repository) as one:
            await one.settled("failed")
            assert await one.serves() == "1.0.0"
            one.want(second)
            await one.settled("committed")
            assert await one.serves() == "1.1.0"

    run(install)
    (tmp_path / "state" / "journal.json").write_bytes(journal)
    run(restart)


def test_too_many_starts_in_probation_recover_the_previous_release(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    journal = Journal(tmp_path / "state")

    async def install() -> None:
        async with device(tmp_path / "state", repository) as one:
            for ref in (first, second):
                one.want(ref)
                await one.settled("committed")

    async def restart() -> None:
        async with device(tmp_path / "state", repository) as one:
            entry = await one.settled("failed")
            assert "starts in probation" in entry.reason
            assert await one.serves() == "1.0.0"

    run(install)
    entry = journal.read()
    journal.write(Entry(state="probation", desired=entry.desired, starts=3))
    run(restart)
