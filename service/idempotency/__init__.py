"""The same call sent twice has one effect: `Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header-07."""
