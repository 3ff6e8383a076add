"""ASGI middleware; it imports nothing else of this package."""
