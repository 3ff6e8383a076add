"""The servers that are compared, one in each file, with a `create_app()` that uvicorn calls.

A peer reads from the environment its database, `DATABASE_URL`, and the size of its pool, `POOL_SIZE`; Latchkey reads
its own settings.
"""
