"""Run by Alembic for gateway.storage.migrate, which hands over the connection. Each migration is one transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], transactional_ddl=True, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
