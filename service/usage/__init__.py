"""The usage of keys: calls are counted in each worker, flushed to the database, read by owners, and rolled up."""
