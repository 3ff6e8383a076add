"""Webhooks: events are written in the transaction of their change, and delivered to the addresses of the operator."""
