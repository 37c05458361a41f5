"""Revisions of the schema, for alembic. ``python -m tests.simulators.next_revision`` adds one."""
