"""What Alembic runs: the connection is handed in by `latchkey.service.database.schema`."""

from alembic import context

from latchkey.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=False,
)
with context.begin_transaction():
    context.run_migrations()
