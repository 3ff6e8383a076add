"""The HTTP methods."""

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
"""The methods that a route can declare; GET includes HEAD."""

DESCRIBED_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE")
"""The methods that a path can have in OpenAPI 3.1."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The methods that change nothing (RFC 9110, section 9.2.1)."""
