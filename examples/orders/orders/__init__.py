"""Orders of partners, and their shipments: the worked package of `docs/extending.md`."""
