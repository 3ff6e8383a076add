"""Limits and quotas: pure rules, the counters in the database, and the gate that applies them to a call."""
