"""Benchmarks of Latchkey and its peers: the same jobs, database and machine. See `docs/performance.md`."""
