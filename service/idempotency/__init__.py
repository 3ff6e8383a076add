"""A call that is sent twice has one effect: `Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header-07."""
