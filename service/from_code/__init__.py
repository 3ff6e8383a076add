"""Latchkey from a team's own Python code: its keys, and a session outside requests."""
