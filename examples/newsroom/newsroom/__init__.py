"""Articles of partners, and their readers: the worked package of `docs/your-own-package.md`."""
