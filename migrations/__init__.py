"""The schema's history, forward only. `latchkey migrate` runs it."""
