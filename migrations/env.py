"""The environment that Alembic runs: `latchkey.service.database.schema` passes the connection and the options."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    render_as_batch=False,
    **context.config.attributes["options"],
)
with context.begin_transaction():
    context.run_migrations()
