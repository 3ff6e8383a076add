"""Orders that partners place, and their shipments: the worked package of `docs/extending.md`."""
