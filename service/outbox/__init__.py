"""The outbox: events for webhooks, written in the transaction of the change that they report."""
