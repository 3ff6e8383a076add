"""The migrations of the schema, forward only; `latchkey migrate` runs them."""
