"""Limits and quotas: pure rules of what fits, the counters in the database, and the gate that asks them."""
