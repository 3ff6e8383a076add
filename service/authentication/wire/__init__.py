"""Credentials as they travel: pure rules that read and check them, without I/O, clock or database."""
