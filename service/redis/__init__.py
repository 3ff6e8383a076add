"""Redis: the connection, and the store of what must not be lost."""
