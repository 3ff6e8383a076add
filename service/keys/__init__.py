"""Keys: how they and their secrets are issued, and when they were last used."""
