"""Authentication: credentials, their verification, and the authenticated caller."""
