"""Credentials as received: pure functions that parse and check them, without I/O, clock or database."""
