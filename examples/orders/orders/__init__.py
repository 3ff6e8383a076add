"""Orders of partners, and their shipments: the smaller package of `docs/your-own-package.md`."""
