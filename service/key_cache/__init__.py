"""The key cache, and how workers invalidate it."""
