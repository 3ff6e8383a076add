"""Latchkey beside its peers: the same jobs, the same database, the same machine. See `docs/performance.md`."""
