"""A trial that the server has to confirm, too."""

from pathlib import Path

from edge_agent.update.journal import Journal
from tests.simulators.repository import RepositorySimulator
from tests.simulators.updating import device, run

LONG = 3600.0


def test_a_confirmed_release_is_kept_and_an_unconfirmed_one_is_left(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    third = repository.publish("1.2.0", seed=2)

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            one.want(second, confirm_seconds=LONG)
            probation = await one.passed()
            assert probation.rows >= 4
            assert "errors" in probation.verdict
            for _ in range(20):
                await one.tick()
            assert one.updater.entry.state == "probation"
            one.confirm()
            await one.settled("committed")
            assert one.updater.entry.proven == second.digest
            assert one.updater.probation is None

            one.want(third, confirm_seconds=0.3)
            await one.passed()
            entry = await one.settled("failed", "committed")
            assert entry.state == "failed"
            assert "passed here" in entry.reason
            assert "did not confirm it within 0.3 s" in entry.reason
            assert entry.refusals == []  # nothing speaks against the release
            assert await one.serves() == "1.1.0"
            one.confirm()  # too late
            for _ in range(20):
                await one.tick()
            assert one.updater.entry.state == "failed"

    run(story)


def test_a_confirmation_does_not_stand_for_the_device_s_own_verdict(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)

    async def story() -> None:
        async with device(tmp_path / "state", repository, probation_seconds=1.0) as one:
            one.want(first)
            await one.settled("committed")
            one.want(second, confirm_seconds=LONG)
            await one.on_trial(second)
            one.confirm()
            one.engine.totals.errors += 100
            entry = await one.settled("failed", "committed")
            assert "rows failed in probation" in entry.reason
            assert [refusal.release for refusal in entry.refusals] == [second]

    run(story)


def test_errors_that_come_while_the_server_is_waited_for_still_end_the_trial(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)

    async def story() -> None:
        async with device(tmp_path / "state", repository) as one:
            one.want(first)
            await one.settled("committed")
            one.want(second, confirm_seconds=LONG)
            await one.passed()
            one.engine.totals.errors += 100
            await one.settled("failed")
            assert await one.serves() == "1.0.0"

    run(story)


def test_a_confirmation_outlasts_a_restart_without_the_server(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"

    async def before() -> None:
        async with device(state, repository) as one:
            one.want(first)
            await one.settled("committed")
        async with device(state, repository, probation_seconds=LONG) as one:
            await one.tick()
            one.want(second, confirm_seconds=0.1)
            await one.on_trial(second)
            one.confirm()
            await one.tick()

    async def after() -> None:
        async with device(state, repository) as one:
            await one.settled("committed", "failed")
            assert await one.serves() == "1.1.0"

    run(before)
    run(after)


def test_a_restart_in_the_trial_asks_for_the_confirmation_again_and_hears_it(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    state = tmp_path / "state"

    async def before() -> None:
        async with device(state, repository) as one:
            one.want(first)
            await one.settled("committed")
            one.want(second, confirm_seconds=LONG)
            await one.passed()

    async def after() -> None:
        async with device(state, repository) as one:
            await one.tick()
            one.confirm()  # the broker kept it and says it first of all
            await one.settled("committed")
            assert await one.serves() == "1.1.0"

    run(before)
    assert Journal(state).read().state == "probation"
    run(after)
