"""The servers that are compared, one a file; each has a `create_app()` that uvicorn calls.

A peer learns from the environment where the database is, `DATABASE_URL`, and how many connections it may keep,
`POOL_SIZE`; Latchkey reads its own settings.
"""
