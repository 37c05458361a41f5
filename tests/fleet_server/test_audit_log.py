"""The log of decisions against those who would rather have decided otherwise."""

import pytest
import sqlalchemy as sa

from fleet_server.services.audit_log import AuditLog, Checked
from fleet_server.services.errors import InvalidRequest
from fleet_server.storage import append_only, audit, schema
from fleet_server.storage.database import Database

BACKENDS = ("sqlite", "postgresql")
SWAP = ((2, 9), (3, 2), (9, 3))


@pytest.fixture
def log(database: Database) -> AuditLog:
    with database.write() as connection:
        for number in range(5):
            audit.record(
                connection, at_ms=1000 + number, actor=("ann", "bob")[number % 2], role="operator",
                action="rollout.start", subject=f"r{number}", detail={"release": "m@1.0.0"},
            )  # fmt: skip
    return AuditLog(database)


def tamper(database: Database, *statements: str) -> None:
    """Whoever may do anything with the database also drops what guards it."""
    drop = (
        ["DROP TRIGGER audit_append_only ON audit"]
        if database.dialect == "postgresql"
        else ["DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete"]
    )
    with database.write() as connection:
        for statement in (*drop, *statements):
            connection.execute(sa.text(statement))


def test_a_chain_that_nobody_touched_holds(log: AuditLog) -> None:
    found = log.verify()
    assert (found.holds, found.entries, found.problem) == (True, 5, "")
    assert log.verify(found.head) == found
    assert [entry.subject for entry in log.entries(2, 10)] == ["r2", "r3", "r4"]
    assert [entry.subject for entry in log.entries(0, 10, actor="bob")] == ["r1", "r3"]
    assert [entry.entry for entry in log.entries(0, 10, subject="r4")] == [5]


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET actor = 'eve' WHERE entry = 2", "DELETE FROM audit"]
)
def test_the_database_itself_refuses_changes(
    database: Database, log: AuditLog, statement: str
) -> None:
    with (
        pytest.raises(sa.exc.DBAPIError, match=append_only.REFUSAL),
        database.write() as connection,
    ):
        connection.execute(sa.text(statement))
    assert log.verify().holds


@pytest.mark.parametrize(
    ("statements", "said", "good"),
    [
        (["UPDATE audit SET actor = 'eve' WHERE entry = 3"], "entry 3 was changed", 2),
        (["UPDATE audit SET detail = '{}' WHERE entry = 1"], "entry 1 was changed", 0),
        (["DELETE FROM audit WHERE entry = 2"], "entry 2 is missing", 1),
        (["DELETE FROM audit WHERE entry = 1"], "entry 1 is missing", 0),
        (
            [f"UPDATE audit SET entry = {to} WHERE entry = {of}" for of, to in SWAP],
            "entry 2 does not follow", 1,
        ),
    ],
)  # fmt: skip
def test_what_was_tampered_with_is_named(
    database: Database, log: AuditLog, statements: list[str], said: str, good: int
) -> None:
    tamper(database, *statements)
    found = log.verify()
    assert not found.holds
    assert said in found.problem
    assert found.entries == good


def test_an_end_that_was_cut_off_shows_against_a_head_that_was_kept(
    database: Database, log: AuditLog
) -> None:
    head = log.verify().head
    tamper(database, "DELETE FROM audit WHERE entry > 3")
    assert log.verify().holds  # a shorter chain is a chain
    found = log.verify(head)
    assert not found.holds
    assert "cut off: there were 5" in found.problem


def test_a_chain_that_was_written_anew_shows_against_a_head_that_was_kept(
    database: Database, log: AuditLog
) -> None:
    head = log.verify().head
    tamper(database, "DELETE FROM audit")
    with database.write() as connection:
        for number in range(6):
            audit.record(
                connection, at_ms=number, actor="eve", role="operator", action="x", subject="y"
            )
    assert log.verify().holds
    found = log.verify(head)
    assert not found.holds
    assert "written anew" in found.problem


def test_an_empty_log_holds_and_nonsense_is_no_head(database: Database) -> None:
    log = AuditLog(database)
    start = f"0:{audit.START}"
    assert log.verify() == Checked(holds=True, entries=0, head=start)
    assert log.verify(start).holds
    with pytest.raises(InvalidRequest, match="number:hash"):
        log.verify("5")


def test_a_database_that_is_opened_again_is_guarded_still(database: Database) -> None:
    with database.write() as connection:
        append_only.guard(connection)
        assert schema.present(connection) == schema.newest()
