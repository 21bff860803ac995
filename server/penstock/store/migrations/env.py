"""What Alembic runs: the steps, on the connection that `penstock.store.migrate` gives it."""

from alembic import context

from penstock.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
