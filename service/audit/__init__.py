"""The audit log: its events for readers, and the seal that shows whether somebody has changed them."""
