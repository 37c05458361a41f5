"""How alembic runs our revisions: on the connection, and in the transaction, that it is given."""

from alembic import context

from fleet_server.storage import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
