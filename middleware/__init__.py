"""ASGI middleware; it knows nothing else of ours."""
