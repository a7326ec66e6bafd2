"""Alembic's entry: runs on the connection that orchestrator.store.migrate hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    render_as_batch=True,  # SQLite alters by copying
    transaction_per_migration=False,  # the caller's transaction holds: all of it or nothing
)
context.run_migrations()
