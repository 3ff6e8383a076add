"""Leaked keys: secrets that a scanner found in public, reported by calls."""
