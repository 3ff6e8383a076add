"""What Alembic runs: connection and options are handed in by `latchkey.service.database.schema`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    render_as_batch=False,
    **context.config.attributes["options"],
)
with context.begin_transaction():
    context.run_migrations()
