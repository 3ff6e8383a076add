"""Keys: their rules, how secrets are issued, and when a key was last used."""
